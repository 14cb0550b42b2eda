// What: cut a tile out of a volume and normalise it on the way; outside the volume it is zero.
// Layout: source of any strides and integer or float type, tile (d, h, w) C-contiguous float32 or binary16. Sampled
//         takes the source as it was acquired: it is seen through a matrix, and the grid that the tile is cut from is
//         never stored.
// Source: own; y = clip((x - offset) * scale, low, high) as in intensity.IntensityMap.
#pragma once

#include "half.h"
#include "resample.h"
#include "vector.h"

namespace rmr {

struct IntensityMap {
  float scale, offset, low, high;
};

RMR_HD inline float normalise(float x, const IntensityMap& map) {
  const float y = (x - map.offset) * map.scale;
  const float raised = y < map.low ? map.low : y;
  return raised > map.high ? map.high : raised;
}

// Elements written at a time: 16 bytes.
template <class O>
constexpr int kTileWidth = 16 / static_cast<int>(sizeof(O));

// A row's step that may end before it does.
template <class O, int N>
RMR_HD inline void put_step(const O (&values)[N], O* row, int64_t w, int64_t width) {
  if (w + N <= width) return store(values, row + w);
  for (int i = 0; i < N; ++i) {  // a fixed count, so that values stay in registers
    if (w + i < width) row[w + i] = values[i];
  }
}

template <class T, class O = float>
struct Extract {
  Source<T> source;
  Index3 origin;  // of the tile in the volume; may lie outside it
  IntensityMap map;
  O* tile;
  Index3 size;

  // For `launch`.
  Index3 steps() const { return {size.d, size.h, (size.w + kTileWidth<O> - 1) / kTileWidth<O>}; }

  RMR_HD float value(int64_t d, int64_t h, int64_t w) const {
    const Index3 at{origin.d + d, origin.h + h, origin.w + w};
    return source.holds(at.d, at.h, at.w) ? normalise(static_cast<float>(source.at(at.d, at.h, at.w)), map) : 0.0f;
  }
  RMR_HD void put(int64_t d, int64_t h, int64_t w, float value) const {
    tile[(d * size.h + h) * size.w + w] = from_float<O>(value);
  }
  RMR_HD void operator()(int64_t d, int64_t h, int64_t step) const {
    constexpr int kWidth = kTileWidth<O>;
    const int64_t w = step * kWidth;
    O values[kWidth];
    if (in_line(d, h, w, kWidth)) {
      const bool backwards = source.stride.w < 0;
      const int64_t first = origin.w + w;
      T raw[kWidth];
      load(source.row(origin.d + d, origin.h + h) + (backwards ? 1 - first - kWidth : first), raw);
      for (int i = 0; i < kWidth; ++i) {
        const T voxel = backwards ? raw[kWidth - 1 - i] : raw[i];
        values[i] = from_float<O>(normalise(static_cast<float>(voxel), map));
      }
    } else {
      for (int i = 0; i < kWidth; ++i) values[i] = from_float<O>(value(d, h, w + i));
    }
    put_step(values, tile + (d * size.h + h) * size.w, w, size.w);
  }

 private:
  RMR_HD bool in_line(int64_t d, int64_t h, int64_t w, int64_t width) const {
    const bool along = source.stride.w == 1 || source.stride.w == -1;
    return along && source.holds(origin.d + d, origin.h + h, origin.w + w) && origin.w + w + width <= source.shape.w &&
           w + width <= size.w;
  }
};

template <class T, class O = float>
struct ExtractSampled {
  Source<T> source;
  IndexMap matrix;  // index on the grid -> index in the source
  Index3 grid;      // shape of the volume that the tile is cut from
  Index3 origin;    // of the tile in it
  IntensityMap map;
  O* tile;
  Index3 size;

  Index3 steps() const { return size; }

  RMR_HD float value(int64_t d, int64_t h, int64_t w) const {
    const Index3 at{origin.d + d, origin.h + h, origin.w + w};
    const bool holds = at.d >= 0 && at.d < grid.d && at.h >= 0 && at.h < grid.h && at.w >= 0 && at.w < grid.w;
    return holds ? normalise(sample_at(source, matrix, at), map) : 0.0f;
  }
  RMR_HD void put(int64_t d, int64_t h, int64_t w, float value) const {
    tile[(d * size.h + h) * size.w + w] = from_float<O>(value);
  }
  RMR_HD void operator()(int64_t d, int64_t h, int64_t w) const { put(d, h, w, value(d, h, w)); }
};

}  // namespace rmr
