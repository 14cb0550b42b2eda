// What: the schedule of rows, and the kernel's arguments for each tile.
// Layout: as in csrc/ops/blend.h.
// Source: own.
#include "blender.h"

#include <algorithm>

#include "../kernels.h"
#include "voxels.h"

namespace rmr::capi {
namespace {

int channels_of(int classes, int chosen_class) { return std::max(0, classes - 1 - (chosen_class >= 0 ? 1 : 0)); }

// Calls f with the index of every row that a tile covers.
template <class F>
void for_rows_of(const TilePlan& plan, const Tile& tile, const F& f) {
  for (int64_t d = tile.low[0]; d < tile.high[0]; ++d) {
    for (int64_t h = tile.low[1]; h < tile.high[1]; ++h) f(static_cast<size_t>(d * plan.shape[1] + h));
  }
}

}  // namespace

RowSchedule schedule_rows(const TilePlan& plan) {
  const auto rows = static_cast<size_t>(plan.shape[0] * plan.shape[1]);
  RowSchedule schedule;
  for (auto* each : {&schedule.slot, &schedule.first, &schedule.last}) each->assign(rows, -1);
  for (size_t i = 0; i < plan.tiles.size(); ++i) {
    for_rows_of(plan, plan.tiles[i], [&](size_t row) {
      schedule.last[row] = static_cast<int32_t>(i);
      if (schedule.first[row] < 0) schedule.first[row] = static_cast<int32_t>(i);
    });
  }
  std::vector<int32_t> free;  // places of closed rows, the least last
  for (size_t i = 0; i < plan.tiles.size(); ++i) {
    const auto index = static_cast<int32_t>(i);
    for_rows_of(plan, plan.tiles[i], [&](size_t row) {
      if (schedule.first[row] != index) return;
      if (free.empty()) {
        schedule.slot[row] = schedule.slots++;
      } else {
        schedule.slot[row] = free.back();
        free.pop_back();
      }
    });
    for_rows_of(plan, plan.tiles[i], [&](size_t row) {
      if (schedule.last[row] == index) free.push_back(schedule.slot[row]);
    });
    std::sort(free.begin(), free.end(), std::greater<int32_t>());
  }
  return schedule;
}

int64_t Blender::memory_bytes(const TilePlan& plan, const RowSchedule& schedule, int classes, int chosen_class) {
  const int64_t ring = int64_t{schedule.slots} * channels_of(classes, chosen_class) * plan.shape[2];
  return 4 * (ring + 3 * plan.shape[0] * plan.shape[1]);
}

Blender::Blender(const TilePlan& plan, const BlendTargets& targets, int classes, int chosen_class, double gain,
                 double bias, int threads)
    : plan_(plan), schedule_(schedule_rows(plan)), threads_(threads) {
  const int64_t ring = int64_t{schedule_.slots} * channels_of(classes, chosen_class) * plan.shape[2];
  ring_.resize(static_cast<size_t>(ring));
  slab_.shape = index3(plan.shape);
  slab_.slot = schedule_.slot.data();
  slab_.first = schedule_.first.data();
  slab_.last = schedule_.last.data();
  slab_.ring = ring_.empty() ? nullptr : ring_.data();
  slab_.labels = targets.labels;
  slab_.chosen = targets.probability;
  slab_.fused = targets.fused;
  slab_.classes = classes;
  slab_.chosen_class = chosen_class;
  slab_.complement = classes > 0;
  slab_.gain = static_cast<float>(gain);
  slab_.bias = static_cast<float>(bias);
  fill_uncovered();
}

void Blender::add(size_t index, const float* fused, const float* probability) {
  const Tile& tile = plan_.tiles[index];
  const Index3 size = index3(plan_.tile_shape);
  Prediction<float> prediction{};
  prediction.probability = probability;
  prediction.fused = fused;
  prediction.class_stride = size.d * size.h * size.w;
  prediction.stride = prediction.fused_stride = {size.h * size.w, size.w, 1};
  prediction.window_d = tile.windows[0];
  prediction.window_h = tile.windows[1];
  prediction.window_w = tile.windows[2];
  prediction.origin = index3(tile.origin);
  prediction.low = index3(tile.low);
  prediction.high = index3(tile.high);
  prediction.tile = static_cast<int32_t>(index);
  cpu::blend(Blend<float>{slab_, prediction}, threads_);
}

void Blender::fill_uncovered() {
  for (size_t row = 0; row < schedule_.first.size(); ++row) {
    if (schedule_.first[row] >= 0) continue;
    const int64_t begin = static_cast<int64_t>(row) * slab_.shape.w;
    if (slab_.labels) std::fill_n(slab_.labels + begin, slab_.shape.w, uint8_t{0});
    if (slab_.chosen) std::fill_n(slab_.chosen + begin, slab_.shape.w, 0.0f);
    if (slab_.fused) std::fill_n(slab_.fused + begin, slab_.shape.w, slab_.bias);
  }
}

}  // namespace rmr::capi
