// What: foreground search on a device.
// Layout: one thread per block of voxels.
// Source: own; arithmetic in ops/foreground.h.
#include "kernels.h"

namespace rmr::cuda {

template <class T>
void occupancy(const Occupancy<T>& op, void* stream) {
  launch("occupancy", op, op.blocks, stream);
}

#define RMR_INSTANTIATE(T) template void occupancy(const Occupancy<T>&, void*);
RMR_FOR_SOURCE_TYPES(RMR_INSTANTIATE)
#undef RMR_INSTANTIATE

}  // namespace rmr::cuda
