// What: add a tile's predictions, times its window, to the rows of the volume that it covers, and close the rows that
//       no later tile covers.
// Layout: a row is one (d, h) line of the volume. Class scores of the rows in flight lie in a ring (slot, channel, w);
//         the chosen class and the fused image add up in the outputs themselves; with `complement` class 0 is not
//         added up at all, it is what the others leave of one.
//
//           first[row] == tile: the row opens (starts at zero)     last[row] == tile: it closes (see close.h)
//
//         `aligned`: outputs start at multiples of 16 bytes and rows of the ring are padded, so that what a row adds
//         up in lies equally far from such a multiple everywhere: four voxels are then one word in all of them.
// Source: own; separable windows whose shares add up to one per axis, so no count map is needed.
#pragma once

#include "close.h"
#include "half.h"
#include "vector.h"

namespace rmr {

constexpr int kBlendWidth = 4;  // voxels added up at a time

struct Slab {
  Index3 shape;          // of the volume
  const int32_t* slot;   // (d, h): where in the ring a row adds up
  const int32_t* first;  // (d, h): the tile that opens the row, -1 for none
  const int32_t* last;   // (d, h): the tile that closes it
  float* ring;           // (slots, channels, ring_width); null when no class needs it
  uint8_t* labels;       // (d, h, w); null without classes
  float* chosen;         // (d, h, w): probability of the chosen class; null for none
  float* fused;          // (d, h, w); null for none
  int32_t classes;
  int32_t chosen_class;  // -1 for none
  bool complement;
  float gain, bias;        // fused * gain + bias is the intensity in the reference's units
  int64_t ring_width = 0;  // 0: as long as the volume's rows
  bool aligned = false;

  RMR_HD int32_t channels() const { return classes - (complement ? 1 : 0) - (chosen_class >= 0 ? 1 : 0); }

  // How far a row's first voxel lies behind the start of a word.
  RMR_HD int64_t phase(int64_t row) const { return aligned ? row * shape.w % kBlendWidth : 0; }

  // Where class k of a row adds up; null for the class that is left to the complement.
  RMR_HD float* scores(int32_t k, int64_t row) const {
    if (k == chosen_class) return chosen + row * shape.w;
    if (complement && k == 0) return nullptr;
    const int32_t channel = k - (complement ? 1 : 0) - (chosen_class >= 0 && chosen_class < k ? 1 : 0);
    const int64_t width = ring_width > 0 ? ring_width : shape.w;
    return ring + (static_cast<int64_t>(slot[row]) * channels() + channel) * width + phase(row);
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
  int32_t* flaws = nullptr;  // (2): set to one where fused, where a probability is not finite; null when not wanted

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

RMR_HD inline bool finite(float value) { return value - value == 0.0f; }

// The steps of the rows that a tile covers, for `launch`: one more than fits where rows start within a word.
template <class P>
inline Index3 blend_steps(const Slab& slab, const Prediction<P>& tile) {
  const int64_t reach = slab.shape.w + (slab.aligned ? kBlendWidth - 1 : 0);
  return {tile.high.d - tile.low.d, tile.high.h - tile.low.h, (reach + kBlendWidth - 1) / kBlendWidth};
}

// Four voxels of the rows that a tile covers; (d, h) counts from the tile's low corner.
template <class P>
struct Blend {
  Slab slab;
  Prediction<P> tile;

  RMR_HD void operator()(int64_t tile_d, int64_t tile_h, int64_t step) const {
    const int64_t d = tile.low.d + tile_d, h = tile.low.h + tile_h;
    const Step at = locate(d * slab.shape.h + h, step);
    if (at.count == 0) return;
    if (!at.opens && !at.closes && (at.w + at.count <= tile.low.w || at.w >= tile.high.w)) return;
    const float row_weight = tile.weight(d, h);
    Winner<kBlendWidth> winner(slab.complement);
    for (int32_t k = slab.complement ? 1 : 0; k < slab.classes; ++k) {
      float sums[kBlendWidth];
      float* scores = slab.scores(k, at.row);
      add(at, row_weight, scores, tile.probability_row(k, d, h), 1, sums);
      if (at.closes) winner.add(k, sums);
      if (!at.closes || k == slab.chosen_class) put(at, sums, scores);
    }
    if (at.closes && slab.classes > 0) put_labels(at, winner);
    if (slab.fused) add_fused(at, row_weight, tile.fused_row(d, h));
  }

 private:
  struct Step {
    int64_t row, w;  // of the first of `count` voxels
    int count;
    bool opens, closes;
  };

  RMR_HD Step locate(int64_t row, int64_t step) const {
    const int64_t start = step * kBlendWidth - slab.phase(row), end = start + kBlendWidth;
    const int64_t w = start < 0 ? 0 : start, stop = end < slab.shape.w ? end : slab.shape.w;
    const int count = stop > w ? static_cast<int>(stop - w) : 0;
    return {row, w, count, slab.first[row] == tile.tile, slab.last[row] == tile.tile};
  }

  RMR_HD bool whole(const Step& at) const { return slab.aligned && at.count == kBlendWidth; }

  // What the voxels add up to with this tile; voxels outside the volume count as zero.
  RMR_HD void add(const Step& at, float row_weight, const float* sums, const P* values, int flaw,
                  float (&total)[kBlendWidth]) const {
    P predicted[kBlendWidth];
    const bool inside = at.count == kBlendWidth && at.w >= tile.low.w && at.w + kBlendWidth <= tile.high.w;
    if (inside) load(values + (at.w - tile.origin.w), predicted);
    for (int i = 0; i < kBlendWidth; ++i) total[i] = 0.0f;
    if (!at.opens) get(at, sums, total);
    bool sound = true;
    for (int i = 0; i < kBlendWidth; ++i) {
      const int64_t w = at.w + i, x = w - tile.origin.w;
      if (!inside && (i >= at.count || w < tile.low.w || w >= tile.high.w)) continue;
      const P value = inside ? predicted[i] : values[x];
      sound = sound && finite(to_float(value));
      total[i] = accumulate(total[i], value, row_weight, tile.window_w[x]);
    }
    if (!sound && tile.flaws) tile.flaws[flaw] = 1;  // whoever writes here writes the same
  }

  RMR_HD void add_fused(const Step& at, float row_weight, const P* values) const {
    float total[kBlendWidth];
    float* fused = slab.fused + at.row * slab.shape.w;
    add(at, row_weight, fused, values, 0, total);
    if (at.closes) {
      for (int i = 0; i < kBlendWidth; ++i) total[i] = intensity(total[i], slab.gain, slab.bias);
    }
    put(at, total, fused);
  }

  RMR_HD void get(const Step& at, const float* row, float (&values)[kBlendWidth]) const {
    if (whole(at)) return load_words<Word16>(row + at.w, values);
    for (int i = 0; i < kBlendWidth; ++i) values[i] = i < at.count ? row[at.w + i] : 0.0f;
  }
  RMR_HD void put(const Step& at, const float (&values)[kBlendWidth], float* row) const {
    if (whole(at)) return store_words<Word16>(values, row + at.w);
    for (int i = 0; i < kBlendWidth; ++i) {
      if (i < at.count) row[at.w + i] = values[i];
    }
  }
  RMR_HD void put_labels(const Step& at, const Winner<kBlendWidth>& winner) const {
    uint8_t labels[kBlendWidth];
    for (int i = 0; i < kBlendWidth; ++i) labels[i] = winner.chosen(i);
    uint8_t* row = slab.labels + at.row * slab.shape.w + at.w;
    if (whole(at)) return store_words<Word4>(labels, row);
    for (int i = 0; i < kBlendWidth; ++i) {
      if (i < at.count) row[i] = labels[i];
    }
  }
};

// One voxel of the rows that no tile covers: class 0 for certain, and the intensity of a fused value of 0.
struct Clear {
  Slab slab;

  RMR_HD void operator()(int64_t d, int64_t h, int64_t w) const {
    const int64_t row = d * slab.shape.h + h, voxel = row * slab.shape.w + w;
    if (slab.first[row] >= 0) return;
    if (slab.labels) slab.labels[voxel] = 0;
    if (slab.chosen) slab.chosen[voxel] = 0.0f;
    if (slab.fused) slab.fused[voxel] = slab.bias;
  }
};

}  // namespace rmr
