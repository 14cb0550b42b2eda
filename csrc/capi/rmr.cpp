// What: the functions of rmr.h. Nothing throws across this border.
// Layout: a handle is the pipeline itself; what went wrong last is kept per thread.
// Twin: rmr_sdk/pipeline.py, class Pipeline.
#include <rmr_sdk/rmr.h>

#include <cstdlib>
#include <memory>
#include <new>

#include "border.h"
#include "cores.h"
#include "results.h"

#if INTPTR_MAX == INT64_MAX
static_assert(sizeof(rmr_error) == 1064 && sizeof(rmr_open_options) == 64 && sizeof(rmr_info) == 792);
static_assert(sizeof(rmr_volume) == 208 && sizeof(rmr_study) == 16 && sizeof(rmr_progress) == 24);
static_assert(sizeof(rmr_run_options) == 56 && sizeof(rmr_plan_info) == 96 && sizeof(rmr_array) == 40);
static_assert(sizeof(rmr_lesion) == 56 && sizeof(rmr_outputs) == 224);
#endif

namespace {

using namespace rmr::capi;

constexpr uint64_t kOpen = 0x726d722d6f70656e;
constexpr int kKernelThreads = 4;  // most that extraction and blending use: they wait for memory, not for cores

thread_local rmr_error last_error = {sizeof(rmr_error), RMR_OK, {}, {}};

rmr_status remember(const Kind& kind, const std::string& message) {
  last_error.status = static_cast<rmr_status>(kind.family);
  copy_text(last_error.kind, kind.name);
  copy_text(last_error.message, message);
  return last_error.status;
}

template <class Body>
rmr_status guarded(const Body& body) noexcept {
  try {
    body();
    return RMR_OK;
  } catch (const Failure& failure) {
    return remember(failure.kind(), failure.message());
  } catch (const std::bad_alloc&) {
    return remember(kDeviceMemoryError, "the host is out of memory. Use a smaller study, or free memory.");
  } catch (const std::exception& error) {
    return remember(kInternalError, std::string("an error inside the library: ") + error.what() + ".");
  } catch (...) {
    return remember(kInternalError, "an error of an unknown kind.");
  }
}

}  // namespace

struct rmr_pipeline {
  rmr_pipeline(const char* path, const rmr_open_options& options)
      : request(take_open_options(options)),
        max_memory_mib(options.max_memory_mib),
        bundle(Bundle::open(path)),
        manifest(with_levels(bundle.manifest(), options)),
        engine(open_engine(bundle, request)) {
    const int threads = engine->info().threads > 0 ? engine->info().threads : usable_cores();
    kernel_threads = std::min(kKernelThreads, threads);
  }

  volatile uint64_t state = kOpen;
  EngineRequest request;
  double max_memory_mib;
  Bundle bundle;
  Manifest manifest;  // of the bundle, with the caller's levels
  std::unique_ptr<Engine> engine;
  int kernel_threads = 1;
};

namespace {

const rmr_pipeline& checked(const rmr_pipeline* pipeline) {
  if (!pipeline || pipeline->state != kOpen) {
    refuse_usage("the pipeline is closed, or was never opened.", "Open it with rmr_open.");
  }
  return *pipeline;
}

rmr_run_options options_or_default(const rmr_run_options* options) {
  rmr_run_options otherwise;
  rmr_run_options_init(&otherwise);
  return options ? taken(options, "options") : otherwise;
}

void describe(const rmr_pipeline& pipeline, rmr_info& info) {
  const Manifest& manifest = pipeline.manifest;
  const EngineInfo& engine = pipeline.engine->info();
  const std::string& name = engine.precision;
  info.precision = name == "fp32" ? RMR_FP32 : name == "bf16" ? RMR_BF16 : name == "fp16" ? RMR_FP16 : RMR_INT8;
  info.threads = engine.threads;
  info.contrasts = static_cast<uint32_t>(manifest.contrasts.size());
  info.reference = static_cast<uint32_t>(manifest.reference);
  info.classes = static_cast<uint32_t>(manifest.classes.size());
  info.lesion_class = manifest.lesion_class;
  info.tiles_at_once = static_cast<uint32_t>(engine.slots);
  std::copy(manifest.tile_shape.begin(), manifest.tile_shape.end(), info.tile_shape);
  std::copy(manifest.spacing_mm.begin(), manifest.spacing_mm.end(), info.spacing_mm);
  copy_text(info.orientation, manifest.orientation);
  copy_text(info.bundle, manifest.name);
  copy_text(info.bundle_version, manifest.version);
  copy_text(info.bundle_sha256, pipeline.bundle.hash());
  copy_text(info.engine_version, engine.version);
  copy_text(info.device_name, engine.device_name);
  copy_text(info.warning, pipeline.engine->warning());
}

void plan_run(const rmr_pipeline& pipeline, const Run& run, rmr_plan_info& plan) {
  const int64_t slots = run.slots(pipeline.engine->info().slots, pipeline.max_memory_mib);
  plan.tiles_at_once = static_cast<uint32_t>(slots);
  plan.tiles = static_cast<int64_t>(run.plan().tiles.size());
  plan.tiles_skipped = run.plan().skipped;
  plan.bytes = run.need().at(slots);
  plan.least_bytes = run.need().at(1);
  plan.resampled = run.prepared().resampled ? 1 : 0;
  const auto& common = run.prepared().grid.shape();
  const auto& own = run.prepared().axes.source.shape();
  std::copy(common.begin(), common.end(), plan.common_shape);
  std::copy(own.begin(), own.end(), plan.output_shape);
}

const char* name_at(const std::vector<std::string>& names, uint32_t index) {
  return index < names.size() ? names[index].c_str() : nullptr;
}

}  // namespace

extern "C" {

uint32_t rmr_abi_version(void) { return RMR_ABI_VERSION; }

const char* rmr_version(void) { return RMR_VERSION; }

void rmr_last_error(rmr_error* error) {
  if (error && error->struct_size >= kFirstSize<rmr_error>) give(error, last_error);
}

rmr_status rmr_open(const char* bundle, const rmr_open_options* options, rmr_pipeline** pipeline) {
  return guarded([&] {
    if (!pipeline) refuse_usage("pipeline is NULL.", "Pass the address of a pointer.");
    *pipeline = nullptr;
    if (!bundle) refuse_usage("bundle is NULL.", "Pass the path of a bundle.");
    rmr_open_options otherwise;
    rmr_open_options_init(&otherwise);
    *pipeline = new rmr_pipeline(bundle, options ? taken(options, "options") : otherwise);
  });
}

rmr_status rmr_close(rmr_pipeline** pipeline) {
  return guarded([&] {
    if (!pipeline || !*pipeline) return;
    checked(*pipeline);
    rmr_pipeline* closing = *pipeline;
    *pipeline = nullptr;
    closing->state = 0;
    delete closing;
  });
}

rmr_status rmr_describe(const rmr_pipeline* pipeline, rmr_info* info) {
  return guarded([&] {
    check_struct(info, "info");
    rmr_info values{};
    describe(checked(pipeline), values);
    give(info, values);
  });
}

const char* rmr_contrast_name(const rmr_pipeline* pipeline, uint32_t index) {
  const char* name = nullptr;
  guarded([&] { name = name_at(checked(pipeline).manifest.contrasts, index); });
  return name;
}

const char* rmr_class_name(const rmr_pipeline* pipeline, uint32_t index) {
  const char* name = nullptr;
  guarded([&] { name = name_at(checked(pipeline).manifest.classes, index); });
  return name;
}

rmr_status rmr_plan(const rmr_pipeline* pipeline, const rmr_study* study, const rmr_run_options* options,
                    rmr_plan_info* plan) {
  return guarded([&] {
    const rmr_pipeline& opened = checked(pipeline);
    check_struct(plan, "plan");
    const Manifest& manifest = opened.manifest;
    const RunOptions asked = take_run_options(options_or_default(options), manifest, opened.kernel_threads);
    const Run run(manifest, take_study(study), asked, opened.kernel_threads);
    rmr_plan_info values{};
    plan_run(opened, run, values);
    give(plan, values);
  });
}

rmr_status rmr_run(const rmr_pipeline* pipeline, const rmr_study* study, const rmr_run_options* options,
                   rmr_outputs* outputs) {
  return guarded([&] {
    const rmr_pipeline& opened = checked(pipeline);
    rmr_outputs wanted = taken(outputs, "outputs");
    const Manifest& manifest = opened.manifest;
    const RunOptions asked = take_run_options(options_or_default(options), manifest, opened.kernel_threads);
    const std::vector<Contrast> contrasts = take_study(study);
    RunOutputs found = take_outputs(wanted, manifest, contrasts, asked.prepare.reference);
    const Clock::time_point started = Clock::now();
    asked.control.tell(Stage::kPrepare, 0, 1);
    Run run(manifest, contrasts, asked, opened.kernel_threads);
    const int64_t slots = run.slots(opened.engine->info().slots, opened.max_memory_mib);
    found.prepare_s = std::chrono::duration<double>(Clock::now() - started).count();
    run.compute(*opened.engine, slots, found);
    give_outputs(found, opened.engine->warning(), wanted);
    give(outputs, wanted);
  });
}

}  // extern "C"
