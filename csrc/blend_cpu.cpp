// What: blending on the CPU, closing included: a row is opened, added to and closed while it is in the cache.
// Layout: as in ops/blend.h; rows are shared among threads, classes outside and voxels inside a row.
// Source: own.
#include <algorithm>

#include "kernels.h"
#include "thread_pool.h"

namespace rmr::cpu {
namespace {

constexpr int64_t kStretch = 512;  // voxels closed at a time: scores and labels stay in the first-level cache

#define RMR_ADD_ROW(P)                                                                                   \
  RMR_CLONES void add_row(float* __restrict sums, const P* __restrict values, float row_weight,          \
                          const float* __restrict window, int64_t count) {                               \
    for (int64_t i = 0; i < count; ++i) sums[i] = accumulate(sums[i], values[i], row_weight, window[i]); \
  }
RMR_ADD_ROW(float)
RMR_ADD_ROW(Half)
#undef RMR_ADD_ROW

RMR_CLONES void sum_row(float* __restrict total, const float* __restrict scores, int64_t count) {
  for (int64_t i = 0; i < count; ++i) total[i] += scores[i];
}

RMR_CLONES void background_row(float* others, int64_t count) {
  for (int64_t i = 0; i < count; ++i) others[i] = background(others[i]);
}

// Without a branch, so that it is vectorised: `won` becomes a mask.
RMR_CLONES void win_row(float* __restrict best, int32_t* __restrict winner, const float* __restrict scores, int32_t k,
                        int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const int32_t won = -static_cast<int32_t>(wins(scores[i], best[i]));
    winner[i] = (winner[i] & ~won) | (k & won);
    best[i] = wins(scores[i], best[i]) ? scores[i] : best[i];
  }
}

RMR_CLONES void narrow_row(uint8_t* __restrict labels, const int32_t* __restrict winner, int64_t count) {
  for (int64_t i = 0; i < count; ++i) labels[i] = static_cast<uint8_t>(winner[i]);
}

RMR_CLONES void intensity_row(float* fused, float gain, float bias, int64_t count) {
  for (int64_t i = 0; i < count; ++i) fused[i] = intensity(fused[i], gain, bias);
}

// Winner of close.h over a stretch of a row.
void label_stretch(const Slab& slab, int64_t row, int64_t begin, int64_t count) {
  float best[kStretch];
  int32_t winner[kStretch];
  std::fill(winner, winner + count, 0);
  if (slab.complement) {
    std::fill(best, best + count, 0.0f);
    for (int32_t k = 1; k < slab.classes; ++k) sum_row(best, slab.scores(k, row) + begin, count);
    background_row(best, count);
  } else {
    std::copy_n(slab.scores(0, row) + begin, count, best);
  }
  for (int32_t k = 1; k < slab.classes; ++k) win_row(best, winner, slab.scores(k, row) + begin, k, count);
  narrow_row(slab.labels + row * slab.shape.w + begin, winner, count);
}

void close_row(const Slab& slab, int64_t row) {
  const int64_t width = slab.shape.w;
  if (slab.classes > 0) {
    for (int64_t begin = 0; begin < width; begin += kStretch) {
      label_stretch(slab, row, begin, std::min(kStretch, width - begin));
    }
  }
  if (slab.fused) intensity_row(slab.fused + row * width, slab.gain, slab.bias, width);
}

template <class P>
void blend_row(const Slab& slab, const Prediction<P>& tile, int64_t d, int64_t h) {
  const int64_t row = d * slab.shape.h + h, width = slab.shape.w;
  const int64_t skip = tile.low.w - tile.origin.w, count = tile.high.w - tile.low.w;
  const bool opens = slab.first[row] == tile.tile;
  const auto add = [&](float* sums, const P* values) {
    if (opens) std::fill(sums, sums + width, 0.0f);
    add_row(sums + tile.low.w, values + skip, tile.weight(d, h), tile.window_w + skip, count);
  };
  for (int32_t k = 0; k < slab.classes; ++k) {
    float* sums = slab.scores(k, row);
    if (sums) add(sums, tile.probability_row(k, d, h));
  }
  if (slab.fused) add(slab.fused + row * width, tile.fused_row(d, h));
  if (slab.last[row] == tile.tile) close_row(slab, row);
}

template <class P>
bool finite_row(const P* values, int64_t count) {
  bool all = true;
  for (int64_t i = 0; i < count; ++i) all &= finite(to_float(values[i]));
  return all;
}

// Several threads may find a flaw at once: they write the same.
template <class P>
void find_flaws(const Slab& slab, const Prediction<P>& tile, int64_t d, int64_t h) {
  const int64_t skip = tile.low.w - tile.origin.w, count = tile.high.w - tile.low.w;
  for (int32_t k = slab.complement ? 1 : 0; k < slab.classes; ++k) {
    if (!finite_row(tile.probability_row(k, d, h) + skip, count)) __atomic_store_n(tile.flaws + 1, 1, __ATOMIC_RELAXED);
  }
  if (slab.fused && !finite_row(tile.fused_row(d, h) + skip, count)) {
    __atomic_store_n(tile.flaws, 1, __ATOMIC_RELAXED);
  }
}

}  // namespace

template <class P>
void blend(const Blend<P>& op, int threads) {
  const Index3 &low = op.tile.low, &high = op.tile.high;
  const Index3 covered{high.d - low.d, high.h - low.h, high.w - low.w};
  for_rows(covered.d * covered.h, threads, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const Index3 at = row_start(row, covered);
      blend_row(op.slab, op.tile, low.d + at.d, low.h + at.h);
      if (op.tile.flaws) find_flaws(op.slab, op.tile, low.d + at.d, low.h + at.h);
    }
  });
}

void clear(const Clear& op, int threads) {
  const Index3& shape = op.slab.shape;
  for_rows(shape.d * shape.h, threads, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const Index3 at = row_start(row, shape);
      for (int64_t w = 0; w < shape.w; ++w) op(at.d, at.h, w);
    }
  });
}

template void blend(const Blend<float>&, int);
template void blend(const Blend<Half>&, int);

}  // namespace rmr::cpu
