// What: foreground search on the CPU.
// Layout: one thread per stretch of block rows.
// Source: own.
#include "kernels.h"
#include "thread_pool.h"

namespace rmr::cpu {

template <class T>
void occupancy(const Occupancy<T>& op, int threads) {
  for_rows(op.blocks.d * op.blocks.h, threads, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const Index3 at = row_start(row, op.blocks);
      for (int64_t w = 0; w < op.blocks.w; ++w) op(at.d, at.h, w);
    }
  });
}

template <class T>
bool any_above(const Source<T>& source, float threshold, const Index3& low, const Index3& high) {
  for (int64_t d = low.d; d < high.d; ++d) {
    for (int64_t h = low.h; h < high.h; ++h) {
      if (rmr::any_above(source.row(d, h), source.stride.w, low.w, high.w, threshold)) return true;
    }
  }
  return false;
}

#define RMR_INSTANTIATE(T)                           \
  template void occupancy(const Occupancy<T>&, int); \
  template bool any_above(const Source<T>&, float, const Index3&, const Index3&);
RMR_FOR_SOURCE_TYPES(RMR_INSTANTIATE)
#undef RMR_INSTANTIATE

}  // namespace rmr::cpu
