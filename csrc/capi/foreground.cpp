// What: the search of foreground.h, over the kernels' blocks.
// Layout: blocks in C order.
// Source: own.
#include "foreground.h"

#include <algorithm>

namespace rmr::capi {
namespace {

constexpr int64_t kBlock = 8;

int64_t ceil_divided(int64_t value) { return (value + kBlock - 1) / kBlock; }

}  // namespace

Foreground::Foreground(const std::vector<Voxels>& sources, const std::vector<double>& thresholds, int threads)
    : sources_(sources) {
  for (const double threshold : thresholds) bars_.push_back(float_threshold(threshold));
  for (size_t axis = 0; axis < 3; ++axis) blocks_[axis] = ceil_divided(sources[0].shape[axis]);
  occupied_.resize(static_cast<size_t>(blocks_[0] * blocks_[1] * blocks_[2]));
  for (size_t source = 0; source < sources_.size(); ++source) search(source, threads);
}

void Foreground::search(size_t source, int threads) {
  std::vector<int32_t> bounds(occupied_.size() * 6);
  visit(sources_[source], [&](const auto& from) {
    using T = typename std::decay_t<decltype(from)>::Value;
    cpu::occupancy(Occupancy<T>{from, bars_[source], kBlock, bounds.data(), index3(blocks_)}, threads);
  });
  for (size_t block = 0; block < occupied_.size(); ++block) {
    const int32_t* box = bounds.data() + 6 * block;
    if (box[3] == 0) continue;
    occupied_[block] = 1;
    const bool first = high_[0] == 0;
    for (size_t axis = 0; axis < 3; ++axis) {
      low_[axis] = first ? box[axis] : std::min<int64_t>(low_[axis], box[axis]);
      high_[axis] = std::max<int64_t>(high_[axis], box[3 + axis]);
    }
  }
}

bool Foreground::holds(const Triple& low, const Triple& high) const {
  Triple first{}, last{}, inner_first{}, inner_last{};
  for (size_t axis = 0; axis < 3; ++axis) {
    first[axis] = low[axis] / kBlock;
    last[axis] = ceil_divided(high[axis]);
    inner_first[axis] = ceil_divided(low[axis]);
    inner_last[axis] = high[axis] / kBlock;
  }
  if (!any_occupied(first, last)) return false;
  if (any_occupied(inner_first, inner_last)) return true;
  for (size_t i = 0; i < sources_.size(); ++i) {
    const auto above = [&](const auto& source) { return cpu::any_above(source, bars_[i], index3(low), index3(high)); };
    if (visit(sources_[i], above)) return true;
  }
  return false;
}

bool Foreground::any_occupied(const Triple& low, const Triple& high) const {
  for (int64_t d = low[0]; d < high[0]; ++d) {
    for (int64_t h = low[1]; h < high[1]; ++h) {
      for (int64_t w = low[2]; w < high[2]; ++w) {
        if (occupied_[static_cast<size_t>((d * blocks_[1] + h) * blocks_[2] + w)] != 0) return true;
      }
    }
  }
  return false;
}

}  // namespace rmr::capi
