// What: the checks of border.h.
// Layout: -
// Source: own.
#include "border.h"

#include <cmath>
#include <cstdint>

#include "text.h"

namespace rmr::capi {
namespace {

constexpr int64_t kMostExtent = 1 << 20, kMostStride = int64_t{1} << 40;
constexpr double kMostSeconds = 1e9;
constexpr int32_t kMostThreads = 1024;

Dtype dtype_of(rmr_dtype dtype) {
  switch (dtype) {
    case RMR_UINT8:
      return Dtype::kUint8;
    case RMR_INT16:
      return Dtype::kInt16;
    case RMR_UINT16:
      return Dtype::kUint16;
    case RMR_FLOAT32:
      return Dtype::kFloat32;
    default:
      fail(kStudyError, "its dtype is " + std::to_string(dtype) + ".",
           "Choose RMR_UINT8, RMR_INT16, RMR_UINT16 or RMR_FLOAT32.");
  }
}

void check_shape(const Triple& shape) {
  for (const int64_t extent : shape) {
    if (extent >= 1 && extent <= kMostExtent) continue;
    fail(kGeometryError, "a volume needs three axes of at least one voxel, not the shape " + times(shape, "%.0f") + ".",
         "Pass one 3-D volume per contrast.");
  }
}

// Strides in elements, of an array that stays within the caller's bytes.
Triple checked_strides(const int64_t* given, const Triple& shape, int64_t item, size_t bytes, const void* data) {
  if (reinterpret_cast<uintptr_t>(data) % static_cast<uintptr_t>(item) != 0) {
    fail(kStudyError, "its data are not aligned to its elements.", "Pass an aligned array.");
  }
  Triple strides = c_strides(shape);
  const bool c_order = given[0] == 0 && given[1] == 0 && given[2] == 0;
  int64_t reach = item;
  for (size_t axis = 0; axis < 3; ++axis) {
    if (!c_order) {
      if (given[axis] % item != 0 || std::abs(given[axis]) > kMostStride) {
        fail(kStudyError, "its stride " + std::to_string(given[axis]) + " is no multiple of its elements.",
             "Give strides in bytes.");
      }
      strides[axis] = given[axis] / item;
    }
    reach += std::abs(strides[axis]) * item * (shape[axis] - 1);
  }
  if (bytes < static_cast<uint64_t>(reach)) {
    fail(kStudyError,
         "its shape and strides span " + std::to_string(reach) + " bytes, and it has " + std::to_string(bytes) + ".",
         "Correct shape, strides or bytes.");
  }
  return strides;
}

// Voxels that are written must not share memory.
void check_apart(const Triple& shape, const Triple& strides) {
  std::array<size_t, 3> order{0, 1, 2};
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return std::abs(strides[a]) < std::abs(strides[b]); });
  int64_t reach = 1;
  for (const size_t axis : order) {
    if (shape[axis] == 1) continue;
    if (std::abs(strides[axis]) < reach) {
      fail(kStudyError, "its strides put several voxels in one place.", "Correct its strides.");
    }
    reach = std::abs(strides[axis]) * (shape[axis] - 1) + reach;
  }
}

Contrast take_volume(const rmr_volume& volume) {
  if (!volume.contrast) refuse_usage("a volume has no contrast.", "Set contrast to \"T1w\", \"FLAIR\", ...");
  Contrast contrast{volume.contrast, {}, {}};
  return naming(contrast.name, [&] {
    const Triple shape{volume.shape[0], volume.shape[1], volume.shape[2]};
    const Dtype dtype = dtype_of(volume.dtype);
    check_shape(shape);
    if (!volume.data) refuse_usage("the data of a volume are NULL.", "Pass its voxels.");
    const Triple strides = checked_strides(volume.strides, shape, item_size(dtype), volume.bytes, volume.data);
    contrast.voxels = {dtype, static_cast<const char*>(volume.data), shape, strides};
    for (size_t row = 0; row < 4; ++row) {
      for (size_t column = 0; column < 4; ++column) contrast.affine[row][column] = volume.affine[row][column];
    }
    return contrast;
  });
}

std::string precision_name(rmr_precision precision) {
  static const char* const names[] = {"", "fp32", "bf16", "fp16", "int8"};
  if (precision < RMR_PRECISION_AUTO || precision > RMR_INT8) {
    fail(kConfigError, "There is no precision " + std::to_string(precision) + ".", "Choose one of rmr_precision.");
  }
  return names[precision];
}

size_t reference_index(const char* name, const Manifest& manifest) {
  if (!name) return manifest.reference;
  const auto& all = manifest.contrasts;
  const auto found = std::find(all.begin(), all.end(), name);
  if (found == all.end()) {
    fail(kConfigError, std::string("reference is \"") + name + "\".", "Choose one of " + quoted(all) + ".");
  }
  return static_cast<size_t>(found - all.begin());
}

Control control_of(const rmr_run_options& options) {
  Control control;
  if (!(options.deadline_s >= 0.0 && options.deadline_s <= kMostSeconds)) {
    fail(kConfigError, "deadline_s is " + number(options.deadline_s) + ".", "Pass seconds, or 0 for no deadline.");
  }
  if (options.deadline_s > 0.0) {
    control.deadline =
        Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(options.deadline_s));
  }
  if (options.progress) {
    control.go_on = [callback = options.progress, user = options.user](Stage stage, int64_t done, int64_t total) {
      rmr_progress progress{};
      progress.struct_size = sizeof progress;
      progress.stage = static_cast<rmr_stage>(stage);
      progress.done = done;
      progress.total = total;
      return callback(user, &progress) == 0;
    };
  }
  return control;
}

}  // namespace

std::vector<Contrast> take_study(const rmr_study* given) {
  const rmr_study study = taken(given, "study");
  if (study.count == 0 || !study.volumes) {
    fail(kStudyError, "the study holds no contrast.", "Pass at least one volume, such as T1w and FLAIR.");
  }
  const auto* bytes = reinterpret_cast<const char*>(study.volumes);
  const size_t step = study.volumes->struct_size;
  std::vector<Contrast> contrasts;
  for (uint32_t i = 0; i < study.count; ++i) {
    const auto* volume = reinterpret_cast<const rmr_volume*>(bytes + i * step);
    contrasts.push_back(take_volume(taken(volume, "volume")));
  }
  return contrasts;
}

WritableVoxels take_array(const rmr_array& array, const char* name, Dtype dtype, const Triple& shape) {
  if (!array.data) return {dtype, nullptr, {}, {}};
  try {
    const Triple strides = checked_strides(array.strides, shape, item_size(dtype), array.bytes, array.data);
    check_apart(shape, strides);
    return {dtype, static_cast<char*>(array.data), shape, strides};
  } catch (const Failure& failure) {
    throw failure.about(std::string("the output \"") + name + "\"");
  }
}

EngineRequest take_open_options(const rmr_open_options& options) {
  if (options.threads < 0 || options.threads > kMostThreads) {
    fail(kConfigError, "threads is " + std::to_string(options.threads) + ".",
         "Pass a whole number from 1 to 1024, or 0 for all cores.");
  }
  if (!(options.max_memory_mib >= 0.0 && std::isfinite(options.max_memory_mib))) {
    fail(kConfigError, "max_memory_mib is " + number(options.max_memory_mib) + ".",
         "Pass a positive number, or 0 for no limit.");
  }
  return {precision_name(options.precision), options.threads, options.cache_dir ? options.cache_dir : ""};
}

Manifest with_levels(Manifest manifest, const rmr_open_options& options) {
  const auto level = [](const char* name, double given, double stated, double most = 1.0) {
    if (given == 0.0) return stated;
    if (given == RMR_KEEP_ALL) return 0.0;
    if (!(given > 0.0 && given <= most)) {
      fail(kConfigError, std::string(name) + " is " + number(given) + ".",
           "Pass a level up to " + number(most) + ", 0 for what the bundle states, or RMR_KEEP_ALL.");
    }
    return given;
  };
  double& probability = manifest.least_lesion_probability;
  probability = level("least_lesion_probability", options.least_lesion_probability, probability);
  double& share = manifest.least_white_matter;
  share = level("least_white_matter", options.least_white_matter, share);
  double& size = manifest.least_lesion_mm3;
  size = level("least_lesion_mm3", options.least_lesion_mm3, size, 1000.0);
  if (options.lesion_threshold != 0.0) {
    const double least = level("lesion_threshold", options.lesion_threshold, 0.0);
    manifest.lesion_threshold = {1.0, least, 2.0, least, manifest.lesion_threshold.least_piece};
  }
  const LesionThreshold& by_load = manifest.lesion_threshold;
  const bool any = probability > 0.0 || share > 0.0 || size > 0.0 || by_load.small > 0.0 || by_load.large > 0.0;
  if (manifest.lesion_class < 0 && any) {
    fail(kConfigError, manifest.name + " has no lesion class, and a level of lesions is asked for.",
         "Leave lesion_threshold, least_lesion_probability, least_white_matter and least_lesion_mm3 0.");
  }
  if (share > 0.0 && manifest.white_matter < 0) {
    fail(kConfigError,
         "least_white_matter is " + number(share) + ", and " + manifest.name + " has no class \"white_matter\".",
         "Leave it 0.");
  }
  return manifest;
}

RunOptions take_run_options(const rmr_run_options& options, const Manifest& manifest, int threads) {
  if (options.align != RMR_ALIGN_NONE && options.align != RMR_ALIGN_HEADER) {
    fail(kConfigError, "There is no align " + std::to_string(options.align) + ".", "Choose one of rmr_align.");
  }
  if (options.non_finite != RMR_NON_FINITE_ERROR && options.non_finite != RMR_NON_FINITE_ZERO) {
    fail(kConfigError, "There is no non_finite " + std::to_string(options.non_finite) + ".",
         "Choose one of rmr_non_finite.");
  }
  check_overlap(options.overlap);
  RunOptions taken;
  taken.overlap = options.overlap;
  taken.prepare = {reference_index(options.reference, manifest), options.align == RMR_ALIGN_HEADER,
                   options.non_finite == RMR_NON_FINITE_ZERO, threads};
  taken.control = control_of(options);
  return taken;
}

}  // namespace rmr::capi
