// What: the fields of manifest.h, their limits, and what they must have to do with each other.
// Layout: one function per struct of the manifest.
// Source: the limits are those of rmr_sdk/manifest.py.
#include "manifest.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "failure.h"
#include "json.h"
#include "text.h"

namespace rmr::capi {
namespace {

constexpr double kTiny = std::numeric_limits<double>::denorm_min();  // the least that is above 0
constexpr double kMostMl = 10000.0;
constexpr int64_t kMostBytes = (int64_t{1} << 31) - 1;

bool is_upper(char c) { return c >= 'A' && c <= 'Z'; }
bool is_lower(char c) { return c >= 'a' && c <= 'z'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return is_upper(c) || is_lower(c); }
bool is_plain(char c) { return is_letter(c) || is_digit(c) || c == '.' || c == '_' || c == '+' || c == '-'; }

char lowered(char c) { return is_upper(c) ? static_cast<char>(c - 'A' + 'a') : c; }

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), lowered);
  return text;
}

template <class Allowed>
bool all_of(const std::string& text, const Allowed& allowed) {
  return std::all_of(text.begin(), text.end(), allowed);
}

bool any_text(const std::string& text) { return !text.empty(); }

bool is_name(const std::string& text) {
  const auto allowed = [](char c) { return is_plain(c) && !is_upper(c) && c != '+'; };
  return !text.empty() && (is_lower(text[0]) || is_digit(text[0])) && all_of(text, allowed);
}

bool is_label(const std::string& text) {
  return !text.empty() && is_lower(text[0]) &&
         all_of(text, [](char c) { return is_lower(c) || is_digit(c) || c == '_'; });
}

bool is_contrast(const std::string& text) {
  return !text.empty() && is_letter(text[0]) && all_of(text, [](char c) { return is_letter(c) || is_digit(c); });
}

bool is_orientation(const std::string& text) {
  const auto one_of = [&](const char* ends) { return text.find_first_of(ends) != std::string::npos; };
  return text.size() == 3 && one_of("LR") && one_of("PA") && one_of("IS");
}

bool is_sha256(const std::string& text) {
  return text.size() == 64 && all_of(text, [](char c) { return is_digit(c) || (c >= 'a' && c <= 'f'); });
}

// Inside the bundle: no part is empty or begins with a dot.
bool is_path(const std::string& text) {
  bool begins = true;
  for (const char c : text) {
    const bool fits = begins ? is_letter(c) || is_digit(c) : is_plain(c) || c == '/';
    if (!fits) return false;
    begins = c == '/';
  }
  return !begins;
}

bool is_precision(const std::string& text) {
  return text == "fp32" || text == "bf16" || text == "fp16" || text == "int8";
}

bool is_kind(const std::string& text) { return text == "onnx" || text == "engine"; }

BundleFile read_file(const Json& json) {
  BundleFile file;
  file.path = json.at("path").text(is_path, 200);
  file.sha256 = json.at("sha256").text(is_sha256, 64);
  file.size = json.at("size").integer(1, kMostBytes);
  return file;
}

BundleFile read_artifact(const Json& json) {
  BundleFile file = read_file(json);
  file.precision = json.at("precision").text(is_precision, 8);
  file.onnx = json.at("kind").text(is_kind, 8) == "onnx";
  return file;
}

Normalisation read_normalisation(const Json& json) {
  const std::string kind = json.at("kind").text(any_text, 16);
  Normalisation found;
  if (kind == "minmax") return found;
  if (kind != "robust") json.refuse("a normalisation that this version does not know");
  found.robust = true;
  found.percentile = json.real("percentile", found.percentile, kTiny, 100.0);
  found.floor_fraction = json.real("floor_fraction", found.floor_fraction, 0.0, 1.0 - 1e-16);
  found.high = json.real("high", found.high, kTiny, std::numeric_limits<double>::max());
  found.most_median = json.real("most_median", found.most_median, kTiny, 1.0);
  return found;
}

void read_contrasts(const Json& json, Manifest& manifest) {
  std::set<std::string> inputs;
  for (const Json& item : json.at("contrasts").items(1, 8)) {
    manifest.contrasts.push_back(item.text(is_contrast, 32));
    if (!inputs.insert(lower(manifest.contrasts.back())).second) item.refuse("it is named twice");
  }
  const Json reference = json.at("reference");
  const auto& all = manifest.contrasts;
  const auto found = std::find(all.begin(), all.end(), reference.text(is_contrast, 32));
  if (found == all.end()) reference.refuse("it is none of the contrasts " + quoted(all));
  manifest.reference = static_cast<size_t>(found - all.begin());
}

LesionThreshold read_threshold(const Json& json) {
  LesionThreshold found;
  found.small_ml = json.at("small_ml").real(kTiny, kMostMl);
  found.small = json.at("small").real(0.0, 1.0);
  found.large_ml = json.at("large_ml").real(kTiny, kMostMl);
  found.large = json.at("large").real(0.0, 1.0);
  found.least_piece = json.real("least_piece", 0.0, 0.0, 1.0);
  if (found.large_ml <= found.small_ml) json.refuse("large_ml must be above small_ml");
  return found;
}

void read_classes(const Json& json, Manifest& manifest) {
  auto& classes = manifest.classes;
  if (json.has("classes")) {
    for (const Json& item : json.at("classes").items(2, 256)) {
      classes.push_back(item.text(is_label, 64));
      if (std::count(classes.begin(), classes.end(), classes.back()) > 1) item.refuse("it is named twice");
    }
    if (classes[0] != "background") json.at("classes").refuse("it must begin with \"background\"");
  }
  manifest.least_lesion_probability = json.real("least_lesion_probability", 0.0, 0.0, 1.0);
  manifest.least_white_matter = json.real("least_white_matter", 0.0, 0.0, 1.0);
  manifest.least_lesion_mm3 = json.real("least_lesion_mm3", 0.0, 0.0, 1000.0);
  if (json.has("lesion_threshold")) manifest.lesion_threshold = read_threshold(json.at("lesion_threshold"));
  if (!json.has("lesion_class")) {
    if (json.has("lesion_threshold")) json.at("lesion_threshold").refuse("there is no lesion_class");
    for (const char* level : {"least_lesion_probability", "least_white_matter", "least_lesion_mm3"}) {
      if (json.real(level, 0.0, 0.0, 1000.0) > 0.0) json.at(level).refuse("there is no lesion_class");
    }
    return;
  }
  const auto found = std::find(classes.begin(), classes.end(), json.at("lesion_class").text(is_label, 64));
  if (found == classes.end() || found == classes.begin()) json.at("lesion_class").refuse("it is no foreground class");
  manifest.lesion_class = static_cast<int>(found - classes.begin());
  const auto white = std::find(classes.begin(), classes.end(), "white_matter");
  if (white != classes.end()) manifest.white_matter = static_cast<int>(white - classes.begin());
  if (manifest.least_white_matter > 0.0 && manifest.white_matter < 0) {
    json.at("least_white_matter").refuse("there is no class \"white_matter\"");
  }
}

void read_files(const Json& json, Manifest& manifest) {
  std::set<std::string> paths{"manifest.json"}, graphs;
  const auto once = [&](const Json& item, const BundleFile& file) {
    if (!paths.insert(lower(file.path)).second) item.refuse("its path is named twice, or is the manifest itself");
  };
  for (const Json& item : json.at("artifacts").items(1, 256)) {
    manifest.artifacts.push_back(read_artifact(item));
    once(item, manifest.artifacts.back());
    const BundleFile& file = manifest.artifacts.back();
    if (file.onnx && !graphs.insert(file.precision).second) item.refuse("a second ONNX graph of its precision");
  }
  if (graphs.empty()) json.at("artifacts").refuse("none is an ONNX graph");
  manifest.golden = read_file(json.at("golden"));
  once(json.at("golden"), manifest.golden);
}

void read_grid(const Json& json, Manifest& manifest) {
  manifest.orientation = json.at("orientation").text(is_orientation, 3);
  manifest.spacing_tolerance = json.at("spacing_tolerance").real(0.0, 1.0);
  const auto spacing = json.at("spacing_mm").items(3, 3), tile = json.at("tile_shape").items(3, 3);
  for (size_t axis = 0; axis < 3; ++axis) {
    manifest.spacing_mm[axis] = spacing[axis].real(kTiny, 100.0);
    manifest.tile_shape[axis] = tile[axis].integer(1, 1024);
  }
  if (json.has("window")) manifest.sigma_scale = json.at("window").real("sigma_scale", 0.125, kTiny, 1.0);
}

}  // namespace

double LesionThreshold::at(double found_ml) const {
  if (found_ml <= small_ml) return small;
  if (found_ml >= large_ml) return large;
  const double share = std::log(found_ml / small_ml) / std::log(large_ml / small_ml);
  return small + share * (large - small);
}

std::string Manifest::input_name(size_t contrast) const { return lower(contrasts[contrast]); }

std::vector<std::string> Manifest::precisions() const {
  std::vector<std::string> found;
  for (const BundleFile& file : artifacts) {
    if (file.onnx) found.push_back(file.precision);
  }
  return found;
}

Manifest decode_manifest(const std::string& text) {
  rapidjson::Document document;
  parse_json(text, document);
  const Json json(document, "");
  const int64_t version = json.at("schema_version").integer(1, std::numeric_limits<int64_t>::max());
  if (version != 1) {
    fail(kManifestError,
         "manifest.json has schema version " + std::to_string(version) + "; this library reads version 1.",
         "Update the library, or export the bundle again with the matching rmr-export.");
  }
  const std::string use = lower(json.has("intended_use") ? json.at("intended_use").text(any_text, 65536)
                                                         : std::string("not a medical device"));
  if (use.find("not a medical device") == std::string::npos) {
    json.at("intended_use").refuse("it must say \"not a medical device\"");
  }
  Manifest manifest;
  manifest.name = json.at("name").text(is_name, 64);
  manifest.version = json.at("version").text(any_text, 64);
  read_contrasts(json, manifest);
  read_grid(json, manifest);
  manifest.normalisation = read_normalisation(json.at("normalisation"));
  read_classes(json, manifest);
  read_files(json, manifest);
  return manifest;
}

}  // namespace rmr::capi
