// What: the line from a contrast's intensities to the network's, y = clip((x - offset) * scale, low, high).
// Layout: doubles, narrowed to the kernels' float32 where they are used.
// Twin: rmr_sdk/intensity.py.
#pragma once

#include <limits>

#include "../ops/extract.h"
#include "voxels.h"

namespace rmr::capi {

struct IntensityLine {
  double scale = 1.0, offset = 0.0, low = 0.0, high = std::numeric_limits<double>::infinity();
  double floor = 0.0;    // above it a voxel is foreground
  double stretch = 0.0;  // part of the offset that outputs come back without

  double gain() const { return 1.0 / scale + stretch; }
  double zero() const { return offset - stretch; }

  IntensityMap narrowed() const {
    return {static_cast<float>(scale), static_cast<float>(offset), static_cast<float>(low), static_cast<float>(high)};
  }
};

IntensityLine fit_normalisation(const Voxels& voxels, const Normalisation& normalisation);

}  // namespace rmr::capi
