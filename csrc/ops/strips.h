// What: the voxels of a volume in squares that are read along one axis and written along another, for sources that are
//       contiguous along d or h while rows are written along w.
// Layout: a team holds 32 x 32 values, one more column than needed so that neither side meets itself in a memory bank.
// Source: own.
#pragma once

#include "../platform.h"

namespace rmr {

// `Op` has value(d, h, w) and put(d, h, w, value); `along_d` says which axis neighbours are read along.
template <class Op>
struct Strips {
  static constexpr int kSide = 32, kThreads = 256, kPhases = 2;
  struct Shared {
    float at[kSide][kSide + 1];
  };

  Op op;
  Index3 shape;
  bool along_d;

  RMR_HD int64_t inner() const { return along_d ? shape.d : shape.h; }
  RMR_HD int64_t outer() const { return along_d ? shape.h : shape.d; }
  RMR_HD int64_t sides(int64_t extent) const { return (extent + kSide - 1) / kSide; }
  RMR_HD int64_t teams() const { return outer() * sides(inner()) * sides(shape.w); }

  RMR_HD void phase(int phase, int64_t team, int thread, Shared& shared) const {
    const int64_t across = sides(shape.w), along = sides(inner());
    const int64_t w0 = team % across * kSide, i0 = team / across % along * kSide, other = team / (across * along);
    const int x = thread % kSide;
    for (int y = thread / kSide; y < kSide; y += kThreads / kSide) {
      const int64_t i = i0 + (phase == 0 ? x : y), w = w0 + (phase == 0 ? y : x);
      if (i >= inner() || w >= shape.w) continue;
      const int64_t d = along_d ? i : other, h = along_d ? other : i;
      if (phase == 0) {
        shared.at[y][x] = op.value(d, h, w);
      } else {
        op.put(d, h, w, shared.at[x][y]);
      }
    }
  }
};

// Which axes of a source are contiguous, in either direction.
struct Contiguous {
  bool d, h, w;
};

inline Contiguous contiguous_axes(const Index3& stride) {
  const auto one = [](int64_t step) { return step == 1 || step == -1; };
  return {one(stride.d), one(stride.h), one(stride.w)};
}

}  // namespace rmr
