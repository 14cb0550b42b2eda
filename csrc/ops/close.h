// What: make a row final once its last tile is in: the class with the greatest score, and the fused intensity.
// Layout: as in blend.h.
// Source: own; ties go to the lower class as in numpy.argmax, NaN never wins.
#pragma once

#include "blend.h"

namespace rmr {

// The score of class 0 under `complement`: what the other classes leave, so a voxel that skipped tiles would have
// covered counts as background to their share.
RMR_HD inline float background(float others) { return 1.0f - others; }

RMR_HD inline bool wins(float score, float best) { return score > best; }

RMR_HD inline float intensity(float fused, float gain, float bias) { return fused * gain + bias; }

// One voxel of the rows that a tile covers; (d, h) counts from the tile's low corner, w from the volume's.
struct Close {
  Slab slab;
  Index3 low;
  int32_t tile;

  RMR_HD void operator()(int64_t tile_d, int64_t tile_h, int64_t w) const {
    const int64_t row = (low.d + tile_d) * slab.shape.h + low.h + tile_h;
    if (slab.last[row] != tile) return;
    if (slab.classes > 0) slab.labels[row * slab.shape.w + w] = label(row, w);
    if (slab.fused) {
      float& fused = slab.fused[row * slab.shape.w + w];
      fused = intensity(fused, slab.gain, slab.bias);
    }
  }

 private:
  RMR_HD float first_score(int64_t row, int64_t w) const {
    if (!slab.complement) return slab.scores(0, row)[w];
    float others = 0.0f;
    for (int32_t k = 1; k < slab.classes; ++k) others += slab.scores(k, row)[w];
    return background(others);
  }
  RMR_HD uint8_t label(int64_t row, int64_t w) const {
    float best = first_score(row, w);
    int32_t winner = 0;
    for (int32_t k = 1; k < slab.classes; ++k) {
      const float score = slab.scores(k, row)[w];
      if (wins(score, best)) {
        best = score;
        winner = k;
      }
    }
    return static_cast<uint8_t>(winner);
  }
};

}  // namespace rmr
