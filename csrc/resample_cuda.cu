// What: resampling on a device.
// Layout: one thread per voxel of the target.
// Source: own; arithmetic in ops/resample.h.
#include "kernels.h"

namespace rmr::cuda {

template <class T>
void resample(const ResampleNearest<T>& op, void* stream) {
  launch("resample nearest", op, op.size, stream);
}

template <class T>
void resample(const ResampleLinear<T>& op, void* stream) {
  launch("resample linear", op, op.size, stream);
}

template <class T>
void resample(const ResampleArea<T>& op, void* stream) {
  launch("resample area", op, op.size, stream);
}

#define RMR_INSTANTIATE(T)                                  \
  template void resample(const ResampleNearest<T>&, void*); \
  template void resample(const ResampleLinear<T>&, void*);  \
  template void resample(const ResampleArea<T>&, void*);
RMR_FOR_SOURCE_TYPES(RMR_INSTANTIATE)
#undef RMR_INSTANTIATE

}  // namespace rmr::cuda
