// What: a read-only volume of any strides, as it lies in the caller's memory.
// Layout: (d, h, w); strides in elements, negative where an axis runs backwards.
// Source: own.
#pragma once

#include "../platform.h"

namespace rmr {

template <class T>
struct Source {
  using Value = T;

  const T* data;
  Index3 shape;
  Index3 stride;

  RMR_HD bool holds(int64_t d, int64_t h, int64_t w) const {
    return d >= 0 && d < shape.d && h >= 0 && h < shape.h && w >= 0 && w < shape.w;
  }
  RMR_HD const T* row(int64_t d, int64_t h) const { return data + d * stride.d + h * stride.h; }
  RMR_HD T at(int64_t d, int64_t h, int64_t w) const { return row(d, h)[w * stride.w]; }
};

}  // namespace rmr
