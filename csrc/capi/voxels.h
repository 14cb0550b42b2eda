// What: the voxels of a volume as they lie in memory, of one of the types that the kernels read.
// Layout: strides in elements, negative where an axis runs backwards.
// Twin: numpy views in rmr_sdk/volume.py and geometry.AxisMap.
#pragma once

#include <cstdint>

#include "../kernels.h"
#include "geometry.h"

namespace rmr::capi {

enum class Dtype { kUint8, kInt16, kUint16, kFloat32 };

inline int64_t item_size(Dtype dtype) { return dtype == Dtype::kUint8 ? 1 : dtype == Dtype::kFloat32 ? 4 : 2; }

template <class Byte>  // const char to read, char to write
struct StridedVoxels {
  Dtype dtype = Dtype::kFloat32;
  Byte* data = nullptr;
  Triple shape{}, stride{};
};

using Voxels = StridedVoxels<const char>;
using WritableVoxels = StridedVoxels<char>;

inline Triple c_strides(const Triple& shape) { return {shape[1] * shape[2], shape[2], 1}; }

template <class Byte>
bool is_contiguous(const StridedVoxels<Byte>& voxels) {
  const Triple wanted = c_strides(voxels.shape);
  for (size_t axis = 0; axis < 3; ++axis) {
    if (voxels.shape[axis] > 1 && voxels.stride[axis] != wanted[axis]) return false;
  }
  return true;
}

// A view with the axes permuted, then flipped.
template <class Byte>
StridedVoxels<Byte> turned(const StridedVoxels<Byte>& voxels, const AxisMap& axes) {
  StridedVoxels<Byte> view = voxels;
  for (size_t axis = 0; axis < 3; ++axis) {
    view.shape[axis] = voxels.shape[axes.order[axis]];
    view.stride[axis] = voxels.stride[axes.order[axis]];
    if (!axes.flips[axis]) continue;
    view.data += view.stride[axis] * (view.shape[axis] - 1) * item_size(voxels.dtype);
    view.stride[axis] = -view.stride[axis];
  }
  return view;
}

template <class T>
Source<T> source_of(const Voxels& voxels) {
  return {reinterpret_cast<const T*>(voxels.data), index3(voxels.shape), index3(voxels.stride)};
}

// Calls f with the voxels as a Source of their own type.
template <class F>
auto visit(const Voxels& voxels, const F& f) {
  switch (voxels.dtype) {
    case Dtype::kUint8:
      return f(source_of<uint8_t>(voxels));
    case Dtype::kInt16:
      return f(source_of<int16_t>(voxels));
    case Dtype::kUint16:
      return f(source_of<uint16_t>(voxels));
    default:
      return f(source_of<float>(voxels));
  }
}

// Calls f with every voxel, as they lie in C order of the view.
template <class T, class F>
void for_each_voxel(const Source<T>& source, const F& f) {
  for (int64_t d = 0; d < source.shape.d; ++d) {
    for (int64_t h = 0; h < source.shape.h; ++h) {
      const T* row = source.row(d, h);
      for (int64_t w = 0; w < source.shape.w; ++w) f(row[w * source.stride.w]);
    }
  }
}

}  // namespace rmr::capi
