// What: the loop over tiles, with as many in flight as the engine has slots, and the way back to the reference's grid.
// Layout: blending writes straight into the caller's array where that is C-contiguous in the manifest's orientation.
// Source: own.
#include "run.h"

#include <algorithm>
#include <cmath>

#include "failure.h"
#include "foreground.h"
#include "target.h"
#include "text.h"

namespace rmr::capi {
namespace {

constexpr double kMib = 1024.0 * 1024.0;
constexpr const char* kStages[] = {"prepare", "infer", "measure"};

class Stopwatch {
 public:
  double lap() {
    const Clock::time_point now = Clock::now();
    const double seconds = std::chrono::duration<double>(now - started_).count();
    started_ = now;
    return seconds;
  }

 private:
  Clock::time_point started_ = Clock::now();
};

// A reduced precision that overflowed must not become an image.
void check_finite(const char* name, const float* values, int64_t count, size_t tile) {
  bool finite = true;
  for (int64_t i = 0; i < count; ++i) finite &= std::isfinite(values[i]);
  if (!finite) {
    fail(kEngineError,
         std::string("the engine gave values in \"") + name + "\" of tile " + std::to_string(tile) +
             " that are not finite.",
         "Choose a wider precision, such as fp32.");
  }
}

std::vector<double> floors_of(const Prepared& prepared) {
  std::vector<double> floors;
  for (const IntensityLine& line : prepared.intensity) floors.push_back(line.floor);
  return floors;
}

TilePlan plan_study(const Prepared& prepared, const Manifest& manifest, double overlap, int threads) {
  const Foreground foreground(prepared.arrays, floors_of(prepared), threads);
  return plan_tiles(foreground.low(), foreground.high(), prepared.grid.shape(), manifest.tile_shape, overlap,
                    manifest.sigma_scale,
                    [&](const Triple& low, const Triple& high) { return foreground.holds(low, high); });
}

}  // namespace

void Control::tell(Stage stage, int64_t done, int64_t total) const {
  if (Clock::now() >= deadline) too_late();
  if (go_on && !go_on(stage, done, total)) {
    fail(kCancelled, std::string("the run was cancelled during '") + kStages[static_cast<int>(stage)] + "' (" +
                         std::to_string(done) + " of " + std::to_string(total) + ").");
  }
}

void Control::too_late() { fail(kDeadlineExceeded, "the deadline passed before the run was done."); }

class Run::Targets {
 public:
  Targets(const Prepared& prepared, const Manifest& manifest, const RunOutputs& outputs)
      : fused(make(prepared, outputs.fused, Dtype::kFloat32, outputs.fused.data != nullptr)),
        labels(make(prepared, outputs.labels, Dtype::kUint8, !manifest.classes.empty())),
        probability(make(prepared, outputs.probability, Dtype::kFloat32, manifest.lesion_class >= 0)) {}

  BlendTargets blend_targets() const {
    return {labels ? labels->common<uint8_t>() : nullptr, probability ? probability->common<float>() : nullptr,
            fused ? fused->common<float>() : nullptr};
  }

  // Before labels come back onto the reference's grid, which must not decide what stays.
  void drop_lesions(const Grid& grid, const Manifest& manifest, RunOutputs& outputs) const {
    if (!probability) return;
    const auto lesion = static_cast<uint8_t>(manifest.lesion_class);
    uint8_t* const voxels = labels->common<uint8_t>();
    const double found_ml = double(std::count(voxels, voxels + grid.voxels(), lesion)) * grid.voxel_ml();
    cpu::Least least{manifest.least_lesion_probability, static_cast<uint8_t>(manifest.white_matter),
                     manifest.least_white_matter, manifest.lesion_threshold.at(found_ml)};
    least.piece = manifest.lesion_threshold.least_piece;
    const auto drop = [&](const cpu::Least& needed) {
      return cpu::drop_components(voxels, index3(grid.shape()), lesion, probability->common<float>(), needed)
          .components;
    };
    outputs.lesion_threshold = least.voxel;
    if (least.probability > 0.0 || least.share > 0.0 || least.voxel > 0.0) outputs.lesions_dropped = drop(least);
    cpu::Least large;  // what the others left
    large.voxels = static_cast<int64_t>(std::ceil(manifest.least_lesion_mm3 / (1000.0 * grid.voxel_ml()) - 1e-6));
    if (large.voxels > 1) outputs.lesions_dropped += drop(large);
  }

  void restore(int threads) {
    if (fused) fused->restore(Interpolation::kLinear, threads);
    if (labels) labels->restore(Interpolation::kNearest, threads);
    if (probability) probability->restore(Interpolation::kLinear, threads);
  }

 private:
  static std::unique_ptr<Target> make(const Prepared& prepared, const WritableVoxels& wanted, Dtype dtype,
                                      bool needed) {
    if (!needed) return nullptr;
    return std::make_unique<Target>(prepared, wanted.data ? turned(wanted, prepared.axes) : wanted, dtype);
  }

 public:
  std::unique_ptr<Target> fused, labels, probability;
};

Run::Run(const Manifest& manifest, const std::vector<Contrast>& study, const RunOptions& options, int threads)
    : manifest_(manifest),
      options_(options),
      threads_(threads),
      prepared_(prepare(study, manifest, options.prepare)),
      plan_(plan_study(prepared_, manifest, options.overlap, threads)),
      need_(memory_need()) {}

MemoryNeed Run::memory_need() const {
  const int classes = static_cast<int>(manifest_.classes.size());
  const int64_t per_voxel = 4 + (classes > 0 ? 1 : 0) + (manifest_.lesion_class >= 0 ? 4 : 0);
  MemoryNeed need;
  need.per_tile = 4 * manifest_.tile_voxels() * (static_cast<int64_t>(manifest_.contrasts.size()) + 1 + classes);
  need.fixed = prepared_.bytes() + per_voxel * prepared_.grid.voxels() +
               (prepared_.resampled ? 4 * prepared_.axes.grid.voxels() : 0) +
               Blender::memory_bytes(plan_, schedule_rows(plan_), classes, manifest_.lesion_class);
  return need;
}

int64_t Run::slots(int64_t most, double max_memory_mib) const {
  if (max_memory_mib <= 0.0) return most;
  const double budget = max_memory_mib * kMib;
  const auto slots = static_cast<int64_t>(
      std::clamp(std::floor((budget - double(need_.fixed)) / double(need_.per_tile)) - 1.0, 0.0, double(most)));
  if (slots < 1) {
    fail(kDeviceMemoryError,
         "this study needs " + number(std::ceil(double(need_.at(1)) / kMib), "%.0f") +
             " MiB beside the network, and max_memory_mib is " + number(max_memory_mib) + ".",
         "Raise max_memory_mib, or choose a bundle with smaller tiles.");
  }
  return slots;
}

void Run::compute(const Engine& engine, int64_t slots, RunOutputs& outputs) {
  Stopwatch watch;
  Targets targets(prepared_, manifest_, outputs);
  const IntensityLine& intensity = prepared_.intensity[options_.prepare.reference];
  {
    Blender blender(plan_, targets.blend_targets(), static_cast<int>(manifest_.classes.size()), manifest_.lesion_class,
                    intensity.gain(), intensity.zero(), threads_);
    infer(engine, slots, blender);
  }
  outputs.infer_s = watch.lap();
  options_.control.tell(Stage::kMeasure, 0, 1);
  targets.drop_lesions(prepared_.grid, manifest_, outputs);
  targets.restore(threads_);
  measure(targets, outputs);
  outputs.warnings = prepared_.warnings;
  outputs.tiles = static_cast<int64_t>(plan_.tiles.size());
  outputs.tiles_skipped = plan_.skipped;
  outputs.measure_s = watch.lap();
}

void Run::infer(const Engine& engine, int64_t slots, Blender& blender) const {
  const size_t total = plan_.tiles.size(), contrasts = manifest_.contrasts.size();
  const size_t flying = std::min(static_cast<size_t>(slots), total);
  const auto voxels = static_cast<size_t>(manifest_.tile_voxels());
  // Before the session, which reads them until it ends.
  std::vector<std::vector<float>> buffers(flying, std::vector<float>(contrasts * voxels));
  const std::unique_ptr<Session> session = engine.session();

  const auto submit = [&](size_t index) {
    std::vector<float*> inputs;
    for (size_t i = 0; i < contrasts; ++i) {
      inputs.push_back(buffers[index % flying].data() + i * voxels);
      visit(prepared_.arrays[i], [&](const auto& source) {
        using T = typename std::decay_t<decltype(source)>::Value;
        cpu::extract(Extract<T>{source, index3(plan_.tiles[index].origin), prepared_.intensity[i].narrowed(),
                                inputs.back(), index3(manifest_.tile_shape)},
                     threads_);
      });
    }
    session->submit(inputs);
  };
  const Control& control = options_.control;
  control.tell(Stage::kInfer, 0, static_cast<int64_t>(total));
  for (size_t index = 0; index < flying; ++index) submit(index);
  for (size_t index = 0; index < total; ++index) {
    Predictions predictions;
    if (!session->collect(control.deadline, predictions)) Control::too_late();
    check_finite("fused", predictions.fused, manifest_.tile_voxels(), index);
    const auto classes = static_cast<int64_t>(manifest_.classes.size());
    check_finite("probability", predictions.probability, classes * manifest_.tile_voxels(), index);
    if (index + flying < total) submit(index + flying);
    blender.add(index, predictions.fused, predictions.probability);
    control.tell(Stage::kInfer, static_cast<int64_t>(index) + 1, static_cast<int64_t>(total));
  }
}

void Run::measure(const Targets& targets, RunOutputs& outputs) const {
  const Grid& grid = prepared_.axes.grid;
  outputs.voxel_ml = grid.voxel_ml();
  if (!targets.labels) return;
  outputs.class_voxels = count_labels(targets.labels->restored(), manifest_.classes.size());
  if (!targets.probability) return;
  outputs.lesions =
      find_lesions(targets.labels->restored(), targets.probability->restored(), grid, manifest_.lesion_class);
}

}  // namespace rmr::capi
