// What: the caller's arrays and tables: checked before a run, filled in after it.
// Layout: as in rmr.h.
// Source: own.
#pragma once

#include "border.h"

namespace rmr::capi {

// Views of the caller's arrays, on the grid of the reference; refused where they cannot be filled.
RunOutputs take_outputs(const rmr_outputs& wanted, const Manifest& manifest, const std::vector<Contrast>& study,
                        size_t reference);

// Fills in everything but the arrays, which the run has written. `warning` comes before those of the run.
void give_outputs(const RunOutputs& outputs, const std::string& warning, rmr_outputs& wanted);

}  // namespace rmr::capi
