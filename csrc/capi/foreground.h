// What: where any of some volumes on one grid is above its threshold.
// Layout: per block of 8 x 8 x 8 voxels the box of the voxels above the threshold, as csrc/ops/foreground.h gives it.
// Twin: rmr_sdk/foreground.py.
#pragma once

#include <vector>

#include "voxels.h"

namespace rmr::capi {

class Foreground {
 public:
  Foreground(const std::vector<Voxels>& sources, const std::vector<double>& thresholds, int threads);

  // The box of all foreground; zero where there is none.
  const Triple& low() const { return low_; }
  const Triple& high() const { return high_; }

  // Whether the box from `low` to `high` (exclusive), within the volume, holds a foreground voxel.
  bool holds(const Triple& low, const Triple& high) const;

 private:
  void search(size_t source, int threads);
  bool any_occupied(const Triple& low, const Triple& high) const;  // of blocks

  std::vector<Voxels> sources_;
  std::vector<float> bars_;
  Triple blocks_{}, low_{}, high_{};
  std::vector<uint8_t> occupied_;
};

}  // namespace rmr::capi
