// What: extraction on the CPU.
// Layout: rows along w where the source is contiguous there; otherwise strips along the source's contiguous axis, so
//         that every cache line of the source is read once.
// Source: own.
#include <algorithm>
#include <cstdlib>
#include <utility>

#include "kernels.h"
#include "thread_pool.h"

namespace rmr::cpu {
namespace {

constexpr int64_t kStrip = 32, kWidth = 16;  // voxels along the source's contiguous axis and along w

#define RMR_NORMALISE_ROW(T)                                                                                    \
  RMR_CLONES void normalise_row(const T* values, float* out, int64_t count, const IntensityMap& map) {          \
    for (int64_t i = 0; i < count; ++i) out[i] = normalise(static_cast<float>(values[i]), map);                 \
  }                                                                                                             \
  RMR_CLONES void normalise_row(const T* values, Half* out, int64_t count, const IntensityMap& map) {           \
    for (int64_t i = 0; i < count; ++i) out[i].bits = half_bits(normalise(static_cast<float>(values[i]), map)); \
  }
RMR_FOR_SOURCE_TYPES(RMR_NORMALISE_ROW)
#undef RMR_NORMALISE_ROW

struct Range {
  int64_t begin, end;
};

// The part of a tile's axis that lies inside the volume.
Range inside_range(int64_t origin, int64_t size, int64_t extent) {
  const int64_t begin = std::clamp<int64_t>(-origin, 0, size);
  return {begin, std::clamp<int64_t>(extent - origin, begin, size)};
}

// `count` voxels in a row, `stride` (1 or -1) apart in the source.
template <class T, class O>
void normalise_run(const T* in, int64_t stride, O* out, int64_t count, const IntensityMap& map) {
  normalise_row(stride > 0 ? in : in - (count - 1), out, count, map);
  if (stride < 0) std::reverse(out, out + count);
}

template <class T, class O>
void extract_row(const Extract<T, O>& op, const Range& w, int64_t d, int64_t h) {
  const int64_t stride = op.source.stride.w;
  O* out = op.tile + (d * op.size.h + h) * op.size.w;
  std::fill(out, out + w.begin, O{});
  std::fill(out + w.end, out + op.size.w, O{});
  if (w.begin == w.end) return;
  const T* in = op.source.row(op.origin.d + d, op.origin.h + h) + op.origin.w * stride;
  if (std::abs(stride) == 1) {
    normalise_run(in + w.begin * stride, stride, out + w.begin, w.end - w.begin, op.map);
    return;
  }
  for (int64_t i = w.begin; i < w.end; ++i) {
    out[i] = from_float<O>(normalise(static_cast<float>(in[i * stride]), op.map));
  }
}

// `count` voxels along an axis on which the source is contiguous (backwards where `stride` is -1), for every w. They
// go through a small block, so that lines of the tile, often a power of two apart, are written one at a time.
template <class T, class O>
void extract_strip(const Extract<T, O>& op, const Range& w, const T* in, int64_t stride, O* out, int64_t step,
                   int64_t count) {
  float block[kWidth][kStrip];
  for (int64_t begin = w.begin; begin < w.end; begin += kWidth) {
    const int64_t width = std::min(kWidth, w.end - begin);
    for (int64_t i = 0; i < width; ++i) {
      normalise_run(in + (begin + i) * op.source.stride.w, stride, block[i], count, op.map);
    }
    for (int64_t k = 0; k < count; ++k) {
      for (int64_t i = 0; i < width; ++i) out[k * step + begin + i] = from_float<O>(block[i][k]);
    }
  }
}

// All of the inside where the source is contiguous along d (`along_d`) or along h.
template <class T, class O>
void extract_strips(const Extract<T, O>& op, const Range& d, const Range& h, const Range& w, bool along_d,
                    int threads) {
  const Range &inner = along_d ? d : h, &outer = along_d ? h : d;
  const int64_t inner_stride = along_d ? op.source.stride.d : op.source.stride.h;
  const int64_t step = along_d ? op.size.h * op.size.w : op.size.w;
  const int64_t strips = (inner.end - inner.begin + kStrip - 1) / kStrip;
  for_rows(strips * (outer.end - outer.begin), threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t start = inner.begin + i % strips * kStrip, other = outer.begin + i / strips;
      const int64_t at_d = along_d ? start : other, at_h = along_d ? other : start;
      const T* in = op.source.row(op.origin.d + at_d, op.origin.h + at_h) + op.origin.w * op.source.stride.w;
      O* out = op.tile + (at_d * op.size.h + at_h) * op.size.w;
      extract_strip(op, w, in, inner_stride, out, step, std::min(kStrip, inner.end - start));
    }
  });
}

// Rows and row ends outside the volume.
template <class O>
void zero_outside(O* tile, const Index3& size, const Range& d, const Range& h, const Range& w, int threads) {
  for_rows(size.d * size.h, threads, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const Index3 at = row_start(row, size);
      O* out = tile + row * size.w;
      const bool inside = at.d >= d.begin && at.d < d.end && at.h >= h.begin && at.h < h.end;
      std::fill(out, out + (inside ? w.begin : size.w), O{});
      if (inside) std::fill(out + w.end, out + size.w, O{});
    }
  });
}

}  // namespace

template <class T, class O>
void extract(const Extract<T, O>& op, int threads) {
  const Range d = inside_range(op.origin.d, op.size.d, op.source.shape.d);
  const Range h = inside_range(op.origin.h, op.size.h, op.source.shape.h);
  const Range w = inside_range(op.origin.w, op.size.w, op.source.shape.w);
  const bool along_d = std::abs(op.source.stride.d) == 1, along_h = std::abs(op.source.stride.h) == 1;
  if (std::abs(op.source.stride.w) != 1 && (along_d || along_h)) {
    zero_outside(op.tile, op.size, d, h, w, threads);
    extract_strips(op, d, h, w, along_d, threads);
    return;
  }
  for_rows(op.size.d * op.size.h, threads, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const Index3 at = row_start(row, op.size);
      const bool inside = at.d >= d.begin && at.d < d.end && at.h >= h.begin && at.h < h.end;
      extract_row(op, inside ? w : Range{0, 0}, at.d, at.h);
    }
  });
}

template <class T, class O>
void extract(const ExtractSampled<T, O>& op, int threads) {
  for_rows(op.size.d * op.size.h, threads, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const Index3 at = row_start(row, op.size);
      for (int64_t w = 0; w < op.size.w; ++w) op.put(at.d, at.h, w, op.value(at.d, at.h, w));
    }
  });
}

#define RMR_INSTANTIATE(T)                                     \
  template void extract(const Extract<T, float>&, int);        \
  template void extract(const Extract<T, Half>&, int);         \
  template void extract(const ExtractSampled<T, float>&, int); \
  template void extract(const ExtractSampled<T, Half>&, int);
RMR_FOR_SOURCE_TYPES(RMR_INSTANTIATE)
#undef RMR_INSTANTIATE

}  // namespace rmr::cpu
