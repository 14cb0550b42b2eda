// What: blending: tiles in, finished labels, probability and fused image out, with memory for the rows in flight only.
// Layout: a row is one (axis 0, axis 1) line; it has a place in a ring from the first tile that covers it to the last.
// Twin: rmr_sdk/blend.py.
#pragma once

#include <vector>

#include "../ops/blend.h"
#include "tiles.h"

namespace rmr::capi {

// Per row, in C order: where in the ring it adds up, and the tiles that open and close it; -1 for none.
struct RowSchedule {
  std::vector<int32_t> slot, first, last;
  int32_t slots = 0;
};

RowSchedule schedule_rows(const TilePlan& plan);

// C-contiguous arrays of the plan's shape; null where not wanted.
struct BlendTargets {
  uint8_t* labels = nullptr;
  float *probability = nullptr, *fused = nullptr;
};

class Blender {
 public:
  Blender(const TilePlan& plan, const BlendTargets& targets, int classes, int chosen_class, double gain, double bias,
          int threads);
  Blender(const Blender&) = delete;  // the slab points into it
  Blender& operator=(const Blender&) = delete;

  // Adds the predictions of a tile, C-contiguous; tiles come in the plan's order.
  void add(size_t index, const float* fused, const float* probability);

  static int64_t memory_bytes(const TilePlan& plan, const RowSchedule& schedule, int classes, int chosen_class);

 private:
  void fill_uncovered();

  const TilePlan& plan_;
  RowSchedule schedule_;
  std::vector<float> ring_;
  Slab slab_{};
  int threads_;
};

}  // namespace rmr::capi
