// What: arrays out of an .npz file, and their comparison with what an engine gave.
// Layout: .npy: magic, version, length of the header, a Python literal that names type, order and shape, the data.
// Source: numpy.lib.format, versions 1 and 2.
#include "golden.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "../ops/half.h"
#include "failure.h"
#include "zip.h"

namespace rmr::capi {
namespace {

constexpr int64_t kMostVoxels = 4096, kMostChannels = 300;

[[noreturn]] void misfit(const std::string& problem) {
  fail(kBundleError, "The golden tile " + problem + ".", "Export the bundle again.");
}

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "(";
  for (size_t i = 0; i < shape.size(); ++i) text += (i > 0 ? ", " : "") + std::to_string(shape[i]);
  return text + (shape.size() == 1 ? ",)" : ")");
}

// Whether the array is in Fortran order. The header is a literal that NumPy writes in one way alone, so what it must
// say can be looked for as text.
bool check_header(const std::string& name, const std::string& header, const char* type, const std::string& shape) {
  const auto says = [&](const std::string& part) { return header.find(part) != std::string::npos; };
  const bool fortran = says("'fortran_order': True");
  if (!says("'descr': '" + std::string(type) + "'") || !(fortran || says("'fortran_order': False")) ||
      !says("'shape': " + shape + ",")) {
    misfit("has " + name + " in another type or shape than " + type + " " + shape);
  }
  return fortran;
}

// Values in C order of values whose first axis is the fastest.
template <class T>
std::vector<T> c_ordered(const std::vector<T>& values, const std::vector<int64_t>& shape) {
  std::vector<T> ordered;
  ordered.reserve(values.size());
  std::vector<int64_t> at(shape.size());
  for (size_t i = 0; i < values.size(); ++i) {
    int64_t from = 0;
    for (size_t axis = shape.size(); axis-- > 0;) from = from * shape[axis] + at[axis];
    ordered.push_back(values[static_cast<size_t>(from)]);
    for (size_t axis = shape.size(); axis-- > 0 && ++at[axis] == shape[axis];) at[axis] = 0;
  }
  return ordered;
}

template <class T>
std::vector<T> array_of(const std::string& name, const std::string& npy, const char* type,
                        const std::vector<int64_t>& shape) {
  const bool second = npy.size() > 12 && npy[6] == 2;
  if (npy.size() < 12 || npy.compare(0, 6, "\x93NUMPY") != 0) misfit("has no array " + name);
  size_t length = 0;
  for (size_t i = second ? 4 : 2; i-- > 0;) length = length << 8 | static_cast<uint8_t>(npy[8 + i]);
  const size_t begin = (second ? 12 : 10) + length;
  size_t count = 1;
  for (const int64_t extent : shape) count *= static_cast<size_t>(extent);
  if (begin > npy.size() || npy.size() - begin != count * sizeof(T)) {
    misfit("has " + name + " in another size than " + shape_text(shape));
  }
  const bool fortran = check_header(name, npy.substr(0, begin), type, shape_text(shape));
  std::vector<T> values(count);
  std::memcpy(values.data(), npy.data() + begin, count * sizeof(T));
  return fortran ? c_ordered(values, shape) : values;
}

void check_finite(const std::string& name, const std::vector<float>& values) {
  for (const float value : values) {
    if (!std::isfinite(value)) misfit("has values in " + name + " that are not finite");
  }
}

std::vector<float> halves(const std::string& name, const std::string& npy, const std::vector<int64_t>& shape) {
  std::vector<float> values;
  for (const uint16_t bits : array_of<uint16_t>(name, npy, "<f2", shape)) values.push_back(to_float(Half{bits}));
  check_finite(name, values);
  return values;
}

int64_t count_voxels(const ZipEntry* entry) {
  // An .npy header is padded to 64 bytes, and the data follow: as many voxels as fit what is left.
  return entry ? static_cast<int64_t>(entry->size - std::min<uint64_t>(entry->size, 128)) / 4 : 0;
}

GoldenTile read_arrays(const Zip& zip, const Manifest& manifest) {
  const auto bytes = [&](const std::string& name) {
    const ZipEntry* entry = zip.find(name + ".npy");
    if (!entry) misfit("has no array " + name);
    return zip.read(*entry);
  };
  const int64_t count = count_voxels(zip.find("voxels.npy"));
  if (count == 0) misfit("has no voxels");
  GoldenTile golden;
  golden.voxels = array_of<int32_t>("voxels", bytes("voxels"), "<i4", {count});
  const auto [least, most] = std::minmax_element(golden.voxels.begin(), golden.voxels.end());
  if (*least < 0 || *most >= manifest.tile_voxels()) misfit("has voxels outside the tile");
  for (size_t i = 0; i < manifest.contrasts.size(); ++i) {
    const std::string name = "input." + manifest.input_name(i);
    const auto& tile = manifest.tile_shape;
    golden.inputs.push_back(halves(name, bytes(name), {1, 1, tile[0], tile[1], tile[2]}));
  }
  golden.fused = array_of<float>("output.fused", bytes("output.fused"), "<f4", {1, count});
  check_finite("output.fused", golden.fused);
  if (!manifest.classes.empty()) {
    const std::string name = "output.probability";
    const auto classes = static_cast<int64_t>(manifest.classes.size());
    golden.probability = array_of<float>(name, bytes(name), "<f4", {classes, count});
    check_finite(name, golden.probability);
  }
  return golden;
}

void compare(const std::vector<float>& golden, const float* found, const std::vector<int32_t>& voxels,
             int64_t tile_voxels, Deviation& worst) {
  float magnitude = 1.0f;
  for (const float value : golden) magnitude = std::max(magnitude, std::abs(value));
  double squares = 0.0;
  for (size_t i = 0; i < golden.size(); ++i) {
    const auto channel = static_cast<int64_t>(i / voxels.size());
    const float difference = (found[channel * tile_voxels + voxels[i % voxels.size()]] - golden[i]) / magnitude;
    if (!std::isfinite(difference)) {
      worst.maximum = worst.rms = std::numeric_limits<double>::infinity();
      return;
    }
    worst.maximum = std::max(worst.maximum, static_cast<double>(std::abs(difference)));
    squares += static_cast<double>(difference) * static_cast<double>(difference);
  }
  worst.rms = std::max(worst.rms, std::sqrt(squares / static_cast<double>(golden.size())));
}

}  // namespace

Deviation GoldenTile::deviation(const float* fused_tile, const float* probability_tile, int64_t tile_voxels) const {
  Deviation worst;
  compare(fused, fused_tile, voxels, tile_voxels, worst);
  if (!probability.empty()) compare(probability, probability_tile, voxels, tile_voxels, worst);
  return worst;
}

GoldenTile decode_golden(const std::string& npz, const Manifest& manifest) {
  try {
    const Zip zip = Zip::of_bytes(npz);
    uint64_t claimed = 0;
    for (const ZipEntry& entry : zip.entries()) claimed += entry.size;
    const int64_t inputs = static_cast<int64_t>(manifest.contrasts.size()) * manifest.tile_voxels() * 2;
    if (claimed > static_cast<uint64_t>(inputs + 4 * kMostVoxels * kMostChannels)) {
      misfit("would unpack to more than fits the manifest");
    }
    return read_arrays(zip, manifest);
  } catch (const ZipError& error) {
    misfit(std::string("cannot be read (") + error.what() + ")");
  }
}

Deviation golden_limit(const std::string& precision) {
  if (precision == "fp16") return {1.0, 0.01};
  if (precision == "bf16") return {1.0, 0.02};
  if (precision == "int8") return {1.0, 0.05};
  return {2e-3, 2e-4};
}

}  // namespace rmr::capi
