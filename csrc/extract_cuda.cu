// What: extraction on a device.
// Layout: one thread per 16 bytes of the tile, or per voxel where they are sampled; through squares in shared memory
// where the source is contiguous along d
//         or h, as files read in Fortran order are.
// Source: own; arithmetic in ops/extract.h.
#include "kernels.h"
#include "ops/strips.h"

namespace rmr::cuda {
namespace {

template <class Op>
void extract_any(const Op& op, void* stream) {
  const Contiguous along = contiguous_axes(op.source.stride);
  if (along.w || !(along.d || along.h)) {
    launch("extract", op, op.steps(), stream);
    return;
  }
  const Strips<Op> strips{op, op.size, along.d};
  launch_teams("extract", strips, strips.teams(), stream);
}

}  // namespace

template <class T, class O>
void extract(const Extract<T, O>& op, void* stream) {
  extract_any(op, stream);
}

template <class T, class O>
void extract(const ExtractSampled<T, O>& op, void* stream) {
  extract_any(op, stream);
}

#define RMR_INSTANTIATE(T)                                       \
  template void extract(const Extract<T, float>&, void*);        \
  template void extract(const Extract<T, Half>&, void*);         \
  template void extract(const ExtractSampled<T, float>&, void*); \
  template void extract(const ExtractSampled<T, Half>&, void*);
RMR_FOR_SOURCE_TYPES(RMR_INSTANTIATE)
#undef RMR_INSTANTIATE

}  // namespace rmr::cuda
