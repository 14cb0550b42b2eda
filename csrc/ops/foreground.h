// What: where a volume is above a threshold, in blocks: per block the bounding box of its voxels above it.
// Layout: bounds (block d, block h, block w, 6) int32: low corner, high corner (exclusive); all zero for an empty
// block. Source: own.
#pragma once

#include <cmath>

#include "source.h"

namespace rmr {

// The greatest float32 not above `threshold`: a float32 is above one exactly when it is above the other.
inline float float_threshold(double threshold) {
  const float nearest = static_cast<float>(threshold);
  return nearest > threshold ? std::nextafter(nearest, -INFINITY) : nearest;
}

template <class T>
RMR_HD inline bool above(T value, float threshold) {
  return static_cast<float>(value) > threshold;
}

template <class T>
RMR_HD inline bool any_above(const T* row, int64_t stride, int64_t begin, int64_t end, float threshold) {
  bool any = false;
  for (int64_t w = begin; w < end; ++w) any |= above(row[w * stride], threshold);
  return any;
}

template <class T>
struct Occupancy {
  Source<T> source;
  float threshold;
  int64_t block;
  int32_t* bounds;
  Index3 blocks;

  RMR_HD void operator()(int64_t bd, int64_t bh, int64_t bw) const {
    const Index3 low{bd * block, bh * block, bw * block};
    const Index3 high{end(low.d, source.shape.d), end(low.h, source.shape.h), end(low.w, source.shape.w)};
    int32_t* box = bounds + ((bd * blocks.h + bh) * blocks.w + bw) * 6;
    for (int i = 0; i < 6; ++i) box[i] = 0;
    for (int64_t d = low.d; d < high.d; ++d) {
      for (int64_t h = low.h; h < high.h; ++h) scan_row(box, d, h, low.w, high.w);
    }
  }

 private:
  RMR_HD int64_t end(int64_t low, int64_t extent) const { return low + block < extent ? low + block : extent; }
  RMR_HD void scan_row(int32_t* box, int64_t d, int64_t h, int64_t begin, int64_t end) const {
    const T* row = source.row(d, h);
    if (!any_above(row, source.stride.w, begin, end, threshold)) return;
    while (!above(row[begin * source.stride.w], threshold)) ++begin;
    while (!above(row[(end - 1) * source.stride.w], threshold)) --end;
    grow(box, 0, d, d + 1);
    grow(box, 1, h, h + 1);
    grow(box, 2, begin, end);
  }
  RMR_HD static void grow(int32_t* box, int axis, int64_t low, int64_t high) {
    const bool empty = box[3 + axis] == 0;
    if (empty || low < box[axis]) box[axis] = static_cast<int32_t>(low);
    if (empty || high > box[3 + axis]) box[3 + axis] = static_cast<int32_t>(high);
  }
};

}  // namespace rmr
