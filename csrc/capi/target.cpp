// What: the arrays of target.h.
// Layout: as there.
// Source: own.
#include "target.h"

namespace rmr::capi {
namespace {

Voxels readable(const WritableVoxels& voxels) { return {voxels.dtype, voxels.data, voxels.shape, voxels.stride}; }

template <class T>
void copy_into(const Source<T>& from, const WritableVoxels& into) {
  auto* start = reinterpret_cast<T*>(into.data);
  for (int64_t d = 0; d < from.shape.d; ++d) {
    for (int64_t h = 0; h < from.shape.h; ++h) {
      const T* row = from.row(d, h);
      T* out = start + d * into.stride[0] + h * into.stride[1];
      for (int64_t w = 0; w < from.shape.w; ++w) out[w * into.stride[2]] = row[w * from.stride.w];
    }
  }
}

}  // namespace

Target::Target(const Prepared& prepared, const WritableVoxels& wanted, Dtype dtype)
    : prepared_(prepared), own_(wanted) {
  own_.dtype = dtype;
  if (!own_.data) own_ = allocate(prepared.axes.grid, own_storage_);
  straight_ = !prepared.resampled && is_contiguous(own_);
  common_ = straight_ ? own_ : allocate(prepared.grid, common_storage_);
}

void Target::restore(Interpolation mode, int threads) {
  if (straight_) return;
  Voxels from = readable(common_);
  std::vector<char> between;
  if (prepared_.resampled) {
    WritableVoxels into = own_;
    if (!is_contiguous(own_)) into = allocate(prepared_.axes.grid, between);
    regrid(from, prepared_.grid, prepared_.axes.grid, mode, threads, into.data);
    from = readable(into);
  }
  if (from.data != own_.data) {
    visit(from, [&](const auto& source) { copy_into(source, own_); });
  }
  common_storage_ = {};
}

Voxels Target::restored() const { return readable(own_); }

WritableVoxels Target::allocate(const Grid& grid, std::vector<char>& storage) const {
  storage.resize(static_cast<size_t>(grid.voxels() * item_size(own_.dtype)));
  return {own_.dtype, storage.data(), grid.shape(), c_strides(grid.shape())};
}

}  // namespace rmr::capi
