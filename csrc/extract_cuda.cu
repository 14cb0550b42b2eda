// What: extraction on a device.
// Layout: one thread per voxel of the tile.
// Source: own; arithmetic in ops/extract.h.
#include "kernels.h"

namespace rmr::cuda {

template <class T>
void extract(const Extract<T>& op, void* stream) {
  launch("extract", op, op.size, stream);
}

#define RMR_INSTANTIATE(T) template void extract(const Extract<T>&, void*);
RMR_FOR_SOURCE_TYPES(RMR_INSTANTIATE)
#undef RMR_INSTANTIATE

}  // namespace rmr::cuda
