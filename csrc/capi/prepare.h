// What: from a study to what the network sees: contrasts checked, on one grid in the manifest's orientation, with the
//       lines that map their intensities.
// Layout: arrays are views of the caller's voxels where nothing was resampled.
// Twin: rmr_sdk/preprocess.py, scan.py and common_grid.py, with align="none" or "header".
#pragma once

#include <deque>
#include <string>
#include <vector>

#include "intensity.h"

namespace rmr::capi {

struct Contrast {
  std::string name;
  Voxels voxels;
  Affine affine;
};

struct PrepareOptions {
  size_t reference = 0;   // index of a contrast of the manifest
  bool resample = false;  // contrasts on other grids, instead of refusing them
  bool zero_non_finite = false;
  int threads = 1;
};

struct Prepared {
  Prepared(const AxisMap& reference_axes, const Grid& common) : axes(reference_axes), grid(common) {}

  AxisMap axes;  // from the reference's own grid to the manifest's orientation
  Grid grid;     // the common grid
  bool resampled = false;
  std::vector<Voxels> arrays;  // per contrast of the manifest, on `grid`
  std::vector<IntensityLine> intensity;
  std::vector<std::string> warnings;
  std::deque<std::vector<char>> storage;  // of arrays that are no views

  int64_t bytes() const;  // of the storage
};

Prepared prepare(const std::vector<Contrast>& study, const Manifest& manifest, const PrepareOptions& options);

}  // namespace rmr::capi
