// What: the checks and the tables of results.h.
// Layout: -
// Source: own.
#include "results.h"

namespace rmr::capi {
namespace {

void check_overlaps(const std::vector<Contrast>& study, const RunOutputs& outputs) {
  struct Range {
    const char *begin, *end;
  };
  const auto range_of = [](const auto& voxels) {
    Range range{voxels.data, voxels.data + item_size(voxels.dtype)};
    for (size_t axis = 0; axis < 3; ++axis) {
      const int64_t reach = voxels.stride[axis] * (voxels.shape[axis] - 1) * item_size(voxels.dtype);
      (reach < 0 ? range.begin : range.end) += reach;
    }
    return range;
  };
  std::vector<Range> taken;
  for (const Contrast& contrast : study) taken.push_back(range_of(contrast.voxels));
  for (const WritableVoxels* output : {&outputs.fused, &outputs.labels, &outputs.probability}) {
    if (!output->data) continue;
    const Range range = range_of(*output);
    for (const Range& other : taken) {
      if (range.begin < other.end && other.begin < range.end) {
        refuse_usage("an output shares memory with an input or another output.", "Pass arrays of their own.");
      }
    }
    taken.push_back(range);
  }
}

void give_lesions(const std::vector<Lesion>& lesions, rmr_outputs& wanted) {
  wanted.lesion_count = static_cast<uint32_t>(lesions.size());
  if (!wanted.lesions || wanted.lesion_capacity == 0) return;
  auto* bytes = reinterpret_cast<char*>(wanted.lesions);
  const size_t step = wanted.lesions->struct_size;
  for (size_t i = 0; i < std::min<size_t>(lesions.size(), wanted.lesion_capacity); ++i) {
    const Lesion& lesion = lesions[i];
    auto* into = reinterpret_cast<rmr_lesion*>(bytes + i * step);
    into->struct_size = static_cast<uint32_t>(step);
    rmr_lesion values{};
    values.id = static_cast<uint32_t>(i) + 1;
    values.volume_ml = lesion.volume_ml;
    std::copy(lesion.centroid_mm.begin(), lesion.centroid_mm.end(), values.centroid_mm);
    values.mean_probability = lesion.mean_probability;
    values.voxels = lesion.voxels;
    give(into, values);
  }
}

void give_warnings(const std::string& first, const std::vector<std::string>& others, rmr_outputs& wanted) {
  std::string lines;
  wanted.warning_count = 0;
  const auto add = [&](const std::string& warning) {
    if (warning.empty()) return;
    lines += (lines.empty() ? "" : "\n") + warning;
    ++wanted.warning_count;
  };
  add(first);
  for (const std::string& warning : others) add(warning);
  if (!wanted.warnings || wanted.warnings_capacity == 0) return;
  const size_t length = std::min<size_t>(lines.size(), wanted.warnings_capacity - 1);
  std::memcpy(wanted.warnings, lines.data(), length);
  wanted.warnings[length] = '\0';
}

}  // namespace

RunOutputs take_outputs(const rmr_outputs& wanted, const Manifest& manifest, const std::vector<Contrast>& study,
                        size_t reference) {
  if (wanted.labels.data && manifest.classes.empty()) {
    fail(kConfigError, "This bundle only fuses: it has no labels.", "Pass NULL for labels.");
  }
  if (wanted.probability.data && manifest.lesion_class < 0) {
    fail(kConfigError, "This bundle has no lesion class.", "Pass NULL for probability.");
  }
  if (wanted.lesions && wanted.lesion_capacity > 0) check_struct(wanted.lesions, "lesions");
  RunOutputs outputs;
  for (const Contrast& contrast : study) {
    if (contrast.name != manifest.contrasts[reference]) continue;
    const Triple& shape = contrast.voxels.shape;
    outputs.fused = take_array(wanted.fused, "fused", Dtype::kFloat32, shape);
    outputs.labels = take_array(wanted.labels, "labels", Dtype::kUint8, shape);
    outputs.probability = take_array(wanted.probability, "probability", Dtype::kFloat32, shape);
  }
  check_overlaps(study, outputs);
  return outputs;
}

void give_outputs(const RunOutputs& outputs, const std::string& warning, rmr_outputs& wanted) {
  give_lesions(outputs.lesions, wanted);
  give_warnings(warning, outputs.warnings, wanted);
  for (size_t i = 0; wanted.class_ml && i < wanted.class_capacity; ++i) {
    const bool known = i < outputs.class_voxels.size();
    wanted.class_ml[i] = known ? double(outputs.class_voxels[i]) * outputs.voxel_ml : 0.0;
  }
  wanted.tiles = outputs.tiles;
  wanted.tiles_skipped = outputs.tiles_skipped;
  wanted.prepare_s = outputs.prepare_s;
  wanted.infer_s = outputs.infer_s;
  wanted.measure_s = outputs.measure_s;
  wanted.lesion_threshold = outputs.lesion_threshold;
  wanted.lesions_dropped = static_cast<uint32_t>(outputs.lesions_dropped);
}

}  // namespace rmr::capi
