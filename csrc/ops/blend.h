// What: add a tile's predictions, times its window, to the rows of the volume that it covers.
// Layout: a row is one (d, h) line of the volume. Class scores of the rows in flight lie in a ring (slot, channel, w);
//         the chosen class and the fused image add up in the outputs themselves; with `complement` class 0 is not
//         added up at all, it is what the others leave of one.
//
//           first[row] == tile: the row opens (starts at zero)     last[row] == tile: it closes (see close.h)
//
// Source: own; separable windows whose shares add up to one per axis, so no count map is needed.
#pragma once

#include "half.h"

namespace rmr {

struct Slab {
  Index3 shape;          // of the volume
  const int32_t* slot;   // (d, h): where in the ring a row adds up
  const int32_t* first;  // (d, h): the tile that opens the row, -1 for none
  const int32_t* last;   // (d, h): the tile that closes it
  float* ring;           // (slots, channels, w); null when no class needs it
  uint8_t* labels;       // (d, h, w); null without classes
  float* chosen;         // (d, h, w): probability of the chosen class; null for none
  float* fused;          // (d, h, w); null for none
  int32_t classes;
  int32_t chosen_class;  // -1 for none
  bool complement;
  float gain, bias;  // fused * gain + bias is the intensity in the reference's units

  RMR_HD int32_t channels() const { return classes - (complement ? 1 : 0) - (chosen_class >= 0 ? 1 : 0); }

  // Where class k of a row adds up; null for the class that is left to the complement.
  RMR_HD float* scores(int32_t k, int64_t row) const {
    if (k == chosen_class) return chosen + row * shape.w;
    if (complement && k == 0) return nullptr;
    const int32_t channel = k - (complement ? 1 : 0) - (chosen_class >= 0 && chosen_class < k ? 1 : 0);
    return ring + (static_cast<int64_t>(slot[row]) * channels() + channel) * shape.w;
  }
};

template <class P>
struct Prediction {
  const P* probability;  // (classes, d, h, w), contiguous along w
  int64_t class_stride;
  Index3 stride;
  const P* fused;  // (d, h, w), contiguous along w
  Index3 fused_stride;
  const float *window_d, *window_h, *window_w;  // the tile's share per axis
  Index3 origin;                                // of the tile in the volume
  Index3 low, high;                             // the voxels of the volume that it contributes to
  int32_t tile;

  RMR_HD float weight(int64_t d, int64_t h) const { return window_d[d - origin.d] * window_h[h - origin.h]; }
  RMR_HD const P* probability_row(int32_t k, int64_t d, int64_t h) const {
    return probability + k * class_stride + (d - origin.d) * stride.d + (h - origin.h) * stride.h;
  }
  RMR_HD const P* fused_row(int64_t d, int64_t h) const {
    return fused + (d - origin.d) * fused_stride.d + (h - origin.h) * fused_stride.h;
  }
};

template <class P>
RMR_HD inline float accumulate(float sum, P value, float row_weight, float window) {
  return sum + to_float(value) * (row_weight * window);
}

// One voxel of the rows that a tile covers; (d, h) counts from the tile's low corner, w from the volume's.
template <class P>
struct Blend {
  Slab slab;
  Prediction<P> tile;

  RMR_HD void operator()(int64_t tile_d, int64_t tile_h, int64_t w) const {
    const int64_t d = tile.low.d + tile_d, h = tile.low.h + tile_h, row = d * slab.shape.h + h;
    const bool opens = slab.first[row] == tile.tile;
    const bool covered = w >= tile.low.w && w < tile.high.w;
    if (!opens && !covered) return;
    const float row_weight = tile.weight(d, h);
    for (int32_t k = 0; k < slab.classes; ++k) {
      float* sums = slab.scores(k, row);
      if (sums) add(sums + w, tile.probability_row(k, d, h), opens, covered, row_weight, w);
    }
    if (slab.fused) {
      add(slab.fused + row * slab.shape.w + w, tile.fused_row(d, h), opens, covered, row_weight, w);
    }
  }

 private:
  RMR_HD void add(float* sum, const P* values, bool opens, bool covered, float row_weight, int64_t w) const {
    const float start = opens ? 0.0f : *sum;
    const int64_t x = w - tile.origin.w;
    *sum = covered ? accumulate(start, values[x], row_weight, tile.window_w[x]) : start;
  }
};

}  // namespace rmr
