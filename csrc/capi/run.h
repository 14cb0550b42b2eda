// What: one study through the pipeline: prepared, planned, computed tile by tile, blended, restored and measured.
// Layout: outputs are views of the caller's arrays on the reference's own grid; data is null where not wanted.
// Twin: rmr_sdk/pipeline.py and inference.py.
#pragma once

#include <functional>

#include "blender.h"
#include "engine.h"
#include "lesions.h"
#include "prepare.h"

namespace rmr::capi {

enum class Stage { kPrepare, kInfer, kMeasure };

// How a run is watched and stopped: between steps, and while it waits for a tile.
struct Control {
  std::function<bool(Stage, int64_t done, int64_t total)> go_on;  // may be empty
  Clock::time_point deadline = Clock::time_point::max();

  void tell(Stage stage, int64_t done, int64_t total) const;
  [[noreturn]] static void too_late();
};

struct RunOptions {
  double overlap = 0.25;
  PrepareOptions prepare;
  Control control;
};

struct RunOutputs {
  WritableVoxels fused, labels, probability;

  std::vector<Lesion> lesions;
  std::vector<int64_t> class_voxels;
  double voxel_ml = 0.0;
  std::vector<std::string> warnings;
  int64_t tiles = 0, tiles_skipped = 0, lesions_dropped = 0;
  double lesion_threshold = 0.0;  // from which on voxels of lesions were kept
  double prepare_s = 0.0, infer_s = 0.0, measure_s = 0.0;
};

// Bytes that a run takes beside the network and the caller's arrays.
struct MemoryNeed {
  int64_t fixed = 0, per_tile = 0;

  int64_t at(int64_t slots) const { return fixed + (slots + 1) * per_tile; }  // one tile more: that last collected
};

class Run {
 public:
  Run(const Manifest& manifest, const std::vector<Contrast>& study, const RunOptions& options, int threads);

  // Tiles to keep in flight; refused where even one does not fit.
  int64_t slots(int64_t most, double max_memory_mib) const;
  const Prepared& prepared() const { return prepared_; }
  const TilePlan& plan() const { return plan_; }
  const MemoryNeed& need() const { return need_; }

  void compute(const Engine& engine, int64_t slots, RunOutputs& outputs);

 private:
  class Targets;
  void infer(const Engine& engine, int64_t slots, Blender& blender) const;
  void measure(const Targets& targets, RunOutputs& outputs) const;
  MemoryNeed memory_need() const;

  const Manifest& manifest_;
  const RunOptions& options_;
  int threads_;
  Prepared prepared_;
  TilePlan plan_;
  MemoryNeed need_;
};

}  // namespace rmr::capi
