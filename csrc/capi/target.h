// What: an output on its way: on the common grid while it is blended, on the reference's own grid afterwards.
// Layout: blending needs C-contiguous arrays in the manifest's orientation; where the caller's array is one and nothing
//         is resampled, it is written to straight.
// Twin: restore_image and restore_labels of rmr_sdk/preprocess.py.
#pragma once

#include <vector>

#include "prepare.h"
#include "regrid.h"

namespace rmr::capi {

class Target {
 public:
  // `wanted` is in the manifest's orientation; where it has no data, an array of our own takes its place.
  Target(const Prepared& prepared, const WritableVoxels& wanted, Dtype dtype);
  Target(const Target&) = delete;  // it points into its own storage
  Target& operator=(const Target&) = delete;

  template <class T>
  T* common() const {
    return reinterpret_cast<T*>(common_.data);
  }
  void restore(Interpolation mode, int threads);
  Voxels restored() const;

 private:
  WritableVoxels allocate(const Grid& grid, std::vector<char>& storage) const;

  const Prepared& prepared_;
  WritableVoxels own_, common_;
  std::vector<char> own_storage_, common_storage_;
  bool straight_ = false;
};

}  // namespace rmr::capi
