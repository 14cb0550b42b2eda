// What: cut a tile out of a volume and normalise it on the way; outside the volume it is zero.
// Layout: source of any strides and integer or float type, tile (d, h, w) C-contiguous float32.
// Source: own; y = clip((x - offset) * scale, low, high) as in intensity.IntensityMap.
#pragma once

#include "source.h"

namespace rmr {

struct IntensityMap {
  float scale, offset, low, high;
};

RMR_HD inline float normalise(float x, const IntensityMap& map) {
  const float y = (x - map.offset) * map.scale;
  const float raised = y < map.low ? map.low : y;
  return raised > map.high ? map.high : raised;
}

template <class T>
struct Extract {
  Source<T> source;
  Index3 origin;  // of the tile in the volume; may lie outside it
  IntensityMap map;
  float* tile;
  Index3 size;

  RMR_HD void operator()(int64_t d, int64_t h, int64_t w) const {
    const Index3 at{origin.d + d, origin.h + h, origin.w + w};
    float value = 0.0f;
    if (source.holds(at.d, at.h, at.w)) {
      value = normalise(static_cast<float>(source.at(at.d, at.h, at.w)), map);
    }
    tile[(d * size.h + h) * size.w + w] = value;
  }
};

}  // namespace rmr
