// What: blending on a device: one launch adds a tile and closes the rows that it was the last to cover.
// Layout: one thread per four voxels of those rows, all classes of them, so that nobody waits for another thread.
// Source: own; arithmetic in ops/blend.h and ops/close.h.
#include "kernels.h"

namespace rmr::cuda {

template <class P>
void blend(const Blend<P>& op, void* stream) {
  launch("blend", op, blend_steps(op.slab, op.tile), stream);
}

void clear(const Clear& op, void* stream) { launch("clear", op, op.slab.shape, stream); }

template void blend(const Blend<float>&, void*);
template void blend(const Blend<Half>&, void*);

}  // namespace rmr::cuda
