// What: what the runtime needs to know about a bundle, read from manifest.json and checked.
// Layout: fields as in docs/bundle-format.md. Those that only tell where a network comes from are not read.
// Twin: rmr_sdk/manifest.py.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace rmr::capi {

using Triple = std::array<int64_t, 3>;

struct Normalisation {
  bool robust = false;  // otherwise minimum and maximum
  double percentile = 99.0, floor_fraction = 0.02, high = 1.5, most_median = 1.0;
};

struct BundleFile {
  std::string path, sha256;
  int64_t size = 0;
  std::string precision;  // empty for the golden tile
  bool onnx = false;
};

// Probability from which on a voxel of a lesion is kept, by the volume found; all zero where all are.
struct LesionThreshold {
  double small_ml = 0.0, small = 0.0, large_ml = 0.0, large = 0.0;
  double least_piece = 0.0;  // share of the largest piece of a lesion that its other pieces need

  double at(double found_ml) const;
};

struct Manifest {
  std::string name, version;
  std::vector<std::string> contrasts;
  size_t reference = 0;
  std::string orientation;
  std::array<double, 3> spacing_mm{};
  double spacing_tolerance = 0.0;
  Normalisation normalisation;
  Triple tile_shape{};
  double sigma_scale = 0.125;
  std::vector<std::string> classes;
  int lesion_class = -1;
  double least_lesion_probability = 0.0;
  double least_white_matter = 0.0;
  double least_lesion_mm3 = 0.0;
  int white_matter = -1;  // the class; -1 where there is none, or no lesion
  LesionThreshold lesion_threshold;
  std::vector<BundleFile> artifacts;
  BundleFile golden;

  std::string input_name(size_t contrast) const;  // the contrast in lower case
  std::vector<std::string> precisions() const;    // that there is an ONNX graph for
  int64_t tile_voxels() const { return tile_shape[0] * tile_shape[1] * tile_shape[2]; }
};

Manifest decode_manifest(const std::string& json);

}  // namespace rmr::capi
