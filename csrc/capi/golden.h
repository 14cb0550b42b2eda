// What: the golden tile: one tile, and the outputs that an engine must reproduce before it is trusted.
// Layout: golden.npz holds input.<name> float16 (1, 1, D, H, W), voxels int32 (n), output.<name> float32 (channels, n).
// Twin: rmr_sdk/golden.py; the limits are those of rmr_sdk/engines/base.py.
#pragma once

#include <string>
#include <vector>

#include "manifest.h"

namespace rmr::capi {

struct Deviation {
  double maximum = 0.0, rms = 0.0;
};

struct GoldenTile {
  std::vector<std::vector<float>> inputs;  // per contrast
  std::vector<int32_t> voxels;
  std::vector<float> fused;        // (n)
  std::vector<float> probability;  // (classes, n)

  // How far outputs, each (channels, D, H, W), are from the golden ones, in units of the largest golden magnitude or of
  // 1 where that is smaller; infinite where one is not finite. `probability` is null without classes.
  Deviation deviation(const float* fused_tile, const float* probability_tile, int64_t tile_voxels) const;
};

GoldenTile decode_golden(const std::string& npz, const Manifest& manifest);

// The largest deviation that a precision explains.
Deviation golden_limit(const std::string& precision);

}  // namespace rmr::capi
