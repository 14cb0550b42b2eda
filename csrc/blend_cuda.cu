// What: blending on a device: one launch adds a tile, a second one closes the rows that it was the last to cover.
// Layout: one thread per voxel of the rows that the tile covers.
// Source: own; arithmetic in ops/blend.h and ops/close.h.
#include "kernels.h"

namespace rmr::cuda {

template <class P>
void blend(const Blend<P>& op, void* stream) {
  const Index3 &low = op.tile.low, &high = op.tile.high;
  const Index3 rows{high.d - low.d, high.h - low.h, op.slab.shape.w};
  launch("blend", op, rows, stream);
  launch("close", Close{op.slab, low, op.tile.tile}, rows, stream);
}

template void blend(const Blend<float>&, void*);
template void blend(const Blend<Half>&, void*);

}  // namespace rmr::cuda
