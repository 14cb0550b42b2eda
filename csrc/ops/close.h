// What: make a row final once its last tile is in: the class with the greatest score, and the fused intensity.
// Layout: as in blend.h.
// Source: own; ties go to the lower class as in numpy.argmax, NaN never wins.
#pragma once

#include <cmath>
#include <cstdint>

#include "../platform.h"

namespace rmr {

// The score of class 0 under `complement`: what the other classes leave, so a voxel that skipped tiles would have
// covered counts as background to their share.
RMR_HD inline float background(float others) { return 1.0f - others; }

RMR_HD inline bool wins(float score, float best) { return score > best; }

RMR_HD inline float intensity(float fused, float gain, float bias) { return fused * gain + bias; }

// The greatest score of some voxels while classes go by in order, each once; class 0 comes last where it is the
// complement of the others, and must be greater or equal then.
template <int N>
struct Winner {
  float best[N], others[N];
  int32_t label[N];
  bool complement;

  RMR_HD explicit Winner(bool of_complement) : complement(of_complement) {
    for (int i = 0; i < N; ++i) {
      best[i] = -INFINITY;
      others[i] = 0.0f;
      label[i] = 0;
    }
  }
  RMR_HD void add(int32_t k, const float (&scores)[N]) {
    for (int i = 0; i < N; ++i) {
      others[i] += scores[i];
      const bool won = k == 0 || wins(scores[i], best[i]);
      best[i] = won ? scores[i] : best[i];
      label[i] = won ? k : label[i];
    }
  }
  RMR_HD uint8_t chosen(int i) const {
    return static_cast<uint8_t>(!complement || wins(best[i], background(others[i])) ? label[i] : 0);
  }
};

}  // namespace rmr
