// What: resampling on the CPU.
// Layout: rows of the target are shared among threads.
// Source: own.
#include "kernels.h"
#include "thread_pool.h"

namespace rmr::cpu {
namespace {

template <class Op>
void for_voxels(const Op& op, int threads) {
  for_rows(op.size.d * op.size.h, threads, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const Index3 at = row_start(row, op.size);
      for (int64_t w = 0; w < op.size.w; ++w) op(at.d, at.h, w);
    }
  });
}

}  // namespace

template <class T>
void resample(const ResampleNearest<T>& op, int threads) {
  for_voxels(op, threads);
}

template <class T>
void resample(const ResampleLinear<T>& op, int threads) {
  for_voxels(op, threads);
}

template <class T>
void resample(const ResampleArea<T>& op, int threads) {
  for_voxels(op, threads);
}

#define RMR_INSTANTIATE(T)                                \
  template void resample(const ResampleNearest<T>&, int); \
  template void resample(const ResampleLinear<T>&, int);  \
  template void resample(const ResampleArea<T>&, int);
RMR_FOR_SOURCE_TYPES(RMR_INSTANTIATE)
#undef RMR_INSTANTIATE

}  // namespace rmr::cpu
