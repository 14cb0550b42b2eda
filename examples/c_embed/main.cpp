// A scanner-side program without Python: it reads two raw volumes, fuses and segments them, and writes the results.
//
//     c_embed BUNDLE T1.raw FLAIR.raw DTYPE NI NJ NK SPACING_MM OUT
//
// The volumes are NI x NJ x NK voxels in C order, their axes running to the right, the front and the top, of DTYPE
// uint8, int16, uint16 or float32. OUT.fused, OUT.labels and OUT.probability are written, also in C order.
//
// Research software, not a medical device.
#include <rmr_sdk/rmr.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

namespace {

constexpr uint32_t kMostLesions = 256;

struct Closer {
  void operator()(rmr_pipeline* pipeline) const { rmr_close(&pipeline); }
};
using Pipeline = std::unique_ptr<rmr_pipeline, Closer>;

// Prints why the last call failed; its status is the exit code.
int complain() {
  rmr_error error;
  rmr_error_init(&error);
  rmr_last_error(&error);
  std::fprintf(stderr, "%s: %s\n", error.kind, error.message);
  return error.status;
}

std::vector<char> read_file(const char* path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

template <class T>
bool write_file(const std::string& path, const std::vector<T>& values) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(values.data()), static_cast<std::streamsize>(values.size() * sizeof(T)));
  return static_cast<bool>(file);
}

rmr_dtype dtype_named(const std::string& name) {
  if (name == "uint8") return RMR_UINT8;
  if (name == "int16") return RMR_INT16;
  if (name == "uint16") return RMR_UINT16;
  return name == "float32" ? RMR_FLOAT32 : 0;  // 0 is refused by the library
}

rmr_volume volume_of(const char* contrast, const std::vector<char>& voxels, rmr_dtype dtype, char** shape,
                     double spacing_mm) {
  rmr_volume volume;
  rmr_volume_init(&volume);
  volume.contrast = contrast;
  volume.dtype = dtype;
  volume.data = voxels.data();
  volume.bytes = voxels.size();
  for (int axis = 0; axis < 3; ++axis) {
    volume.shape[axis] = std::atoll(shape[axis]);
    volume.affine[axis][axis] = spacing_mm;
  }
  volume.affine[3][3] = 1.0;
  return volume;
}

int32_t show_progress(void*, const rmr_progress* progress) {
  if (progress->stage == RMR_STAGE_INFER) {
    std::fprintf(stderr, "tile %lld of %lld\n", static_cast<long long>(progress->done),
                 static_cast<long long>(progress->total));
  }
  return 0;  // go on
}

rmr_array array_of(void* data, size_t bytes) { return {data, bytes, {0, 0, 0}}; }

void print_lesions(const rmr_outputs& outputs, const std::vector<rmr_lesion>& lesions) {
  std::printf("%u lesions, %lld tiles\n", outputs.lesion_count, static_cast<long long>(outputs.tiles));
  for (uint32_t i = 0; i < outputs.lesion_count && i < kMostLesions; ++i) {
    const rmr_lesion& lesion = lesions[i];
    std::printf("%u: %.3f ml at (%.1f, %.1f, %.1f) mm, probability %.2f\n", lesion.id, lesion.volume_ml,
                lesion.centroid_mm[0], lesion.centroid_mm[1], lesion.centroid_mm[2], lesion.mean_probability);
  }
}

int run(const Pipeline& pipeline, const rmr_study& study, const std::string& out) {
  rmr_plan_info plan;
  rmr_plan_info_init(&plan);
  if (rmr_plan(pipeline.get(), &study, nullptr, &plan) != RMR_OK) return complain();
  std::fprintf(stderr, "%lld tiles, %lld MiB\n", static_cast<long long>(plan.tiles),
               static_cast<long long>(plan.bytes >> 20));

  const auto voxels = static_cast<size_t>(plan.output_shape[0] * plan.output_shape[1] * plan.output_shape[2]);
  std::vector<float> fused(voxels), probability(voxels);
  std::vector<uint8_t> labels(voxels);
  std::vector<rmr_lesion> lesions(kMostLesions);
  for (rmr_lesion& lesion : lesions) rmr_lesion_init(&lesion);

  rmr_outputs outputs;
  rmr_outputs_init(&outputs);
  outputs.fused = array_of(fused.data(), voxels * sizeof(float));
  outputs.labels = array_of(labels.data(), voxels);
  outputs.probability = array_of(probability.data(), voxels * sizeof(float));
  outputs.lesions = lesions.data();
  outputs.lesion_capacity = kMostLesions;

  rmr_run_options options;
  rmr_run_options_init(&options);
  options.deadline_s = 600.0;
  options.progress = show_progress;
  if (rmr_run(pipeline.get(), &study, &options, &outputs) != RMR_OK) return complain();
  print_lesions(outputs, lesions);
  const bool written = write_file(out + ".fused", fused) && write_file(out + ".labels", labels) &&
                       write_file(out + ".probability", probability);
  return written ? 0 : 6;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 10) {
    std::fprintf(stderr, "usage: c_embed BUNDLE T1.raw FLAIR.raw DTYPE NI NJ NK SPACING_MM OUT\n");
    return 2;
  }
  rmr_open_options options;
  rmr_open_options_init(&options);
  rmr_pipeline* opened = nullptr;
  if (rmr_open(argv[1], &options, &opened) != RMR_OK) return complain();
  const Pipeline pipeline(opened);

  const std::vector<char> t1 = read_file(argv[2]), flair = read_file(argv[3]);
  const rmr_dtype dtype = dtype_named(argv[4]);
  const double spacing_mm = std::atof(argv[8]);
  const rmr_volume volumes[] = {volume_of("T1w", t1, dtype, argv + 5, spacing_mm),
                                volume_of("FLAIR", flair, dtype, argv + 5, spacing_mm)};
  rmr_study study;
  rmr_study_init(&study);
  study.volumes = volumes;
  study.count = 2;
  return run(pipeline, study, argv[9]);
}
