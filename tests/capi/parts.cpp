// What: the parts of librmr as Python functions, so that tests compare each with its twin.
// Layout: arrays and lists in, tuples and dicts out.
// Source: own.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "../../csrc/capi/blender.h"
#include "../../csrc/capi/cache.h"
#include "../../csrc/capi/common_grid.h"
#include "../../csrc/capi/cores.h"
#include "../../csrc/capi/failure.h"
#include "../../csrc/capi/foreground.h"
#include "../../csrc/capi/golden.h"
#include "../../csrc/capi/intensity.h"
#include "../../csrc/capi/prepare.h"
#include "../../csrc/capi/regrid.h"
#include "../../csrc/capi/sha256.h"
#include "../../csrc/capi/zip.h"

namespace py = pybind11;
using namespace rmr::capi;

namespace {

using DoubleArray = py::array_t<double, py::array::c_style | py::array::forcecast>;

Affine affine_of(const DoubleArray& matrix) {
  Affine affine{};
  for (size_t row = 0; row < 4; ++row) {
    for (size_t column = 0; column < 4; ++column) {
      affine[row][column] = matrix.at(static_cast<py::ssize_t>(row), static_cast<py::ssize_t>(column));
    }
  }
  return affine;
}

Voxels voxels_of(const py::array& array) {
  Voxels voxels;
  const std::string type = py::str(array.dtype());
  voxels.dtype = type == "uint8"    ? Dtype::kUint8
                 : type == "int16"  ? Dtype::kInt16
                 : type == "uint16" ? Dtype::kUint16
                                    : Dtype::kFloat32;
  voxels.data = static_cast<const char*>(array.data());
  for (py::ssize_t axis = 0; axis < 3; ++axis) {
    voxels.shape[static_cast<size_t>(axis)] = array.shape(axis);
    voxels.stride[static_cast<size_t>(axis)] = array.strides(axis) / array.itemsize();
  }
  return voxels;
}

py::tuple grid_tuple(const Grid& grid) { return py::make_tuple(grid.shape(), grid.affine()); }

py::dict plan_dict(const TilePlan& plan) {
  py::list tiles;
  for (const Tile& tile : plan.tiles) {
    py::list windows;
    for (size_t axis = 0; axis < 3; ++axis) {
      windows.append(py::array_t<float>(plan.tile_shape[axis], tile.windows[axis]));
    }
    tiles.append(py::make_tuple(tile.origin, tile.low, tile.high, windows));
  }
  const RowSchedule rows = schedule_rows(plan);
  py::dict found;
  found["tiles"] = tiles;
  found["skipped"] = plan.skipped;
  found["slot"] = rows.slot;
  found["first"] = rows.first;
  found["last"] = rows.last;
  found["slots"] = rows.slots;
  return found;
}

py::dict plan(const py::array& source, double threshold, const Triple& tile, double overlap, double sigma) {
  const Voxels voxels = voxels_of(source);
  const Foreground foreground({voxels}, {threshold}, 1);
  const auto holds = [&](const Triple& low, const Triple& high) { return foreground.holds(low, high); };
  py::dict found =
      plan_dict(plan_tiles(foreground.low(), foreground.high(), voxels.shape, tile, overlap, sigma, holds));
  found["low"] = foreground.low();
  found["high"] = foreground.high();
  return found;
}

py::tuple fit(const py::array& source, bool robust, double percentile, double floor_fraction, double high,
              double most_median) {
  const Normalisation wanted{robust, percentile, floor_fraction, high, most_median};
  const IntensityLine line = fit_normalisation(voxels_of(source), wanted);
  return py::make_tuple(line.scale, line.offset, line.low, line.high, line.floor, line.gain(), line.zero());
}

py::dict describe_grid(const Triple& shape, const DoubleArray& affine, const std::string& codes) {
  const Grid grid(shape, affine_of(affine));
  const AxisMap axes = reorient(grid, codes);
  py::dict found;
  found["orientation"] = grid.orientation();
  found["spacing_mm"] = grid.spacing_mm();
  found["voxel_ml"] = grid.voxel_ml();
  found["text"] = grid.text();
  found["order"] = axes.order;
  found["flips"] = axes.flips;
  found["grid"] = grid_tuple(axes.grid);
  return found;
}

py::object common_grid(const Triple& shape, const DoubleArray& affine, const std::string& manifest) {
  const std::optional<Grid> chosen = choose_grid(Grid(shape, affine_of(affine)), decode_manifest(manifest));
  if (!chosen) return py::none();
  return grid_tuple(*chosen);
}

py::dict relate(const Triple& shape, const DoubleArray& affine, const Triple& other_shape, const DoubleArray& other) {
  const Grid source(shape, affine_of(affine)), target(other_shape, affine_of(other));
  const rmr::IndexMap map = index_map(source, target);
  py::dict found;
  found["coverage"] = source.coverage_of(target);
  found["same_place"] = source.same_place(target);
  found["area"] = image_mode(source, target) == Interpolation::kArea;
  py::list rows;
  for (const auto& row : map.at) rows.append(std::vector<double>(row, row + 4));
  found["index_map"] = rows;
  return found;
}

py::dict manifest_dict(const std::string& json) {
  const Manifest manifest = decode_manifest(json);
  py::dict found;
  found["name"] = manifest.name;
  found["version"] = manifest.version;
  found["contrasts"] = manifest.contrasts;
  found["reference"] = manifest.contrasts[manifest.reference];
  found["orientation"] = manifest.orientation;
  found["spacing_mm"] = manifest.spacing_mm;
  found["spacing_tolerance"] = manifest.spacing_tolerance;
  found["robust"] = manifest.normalisation.robust;
  found["percentile"] = manifest.normalisation.percentile;
  found["floor_fraction"] = manifest.normalisation.floor_fraction;
  found["high"] = manifest.normalisation.high;
  found["most_median"] = manifest.normalisation.most_median;
  found["tile_shape"] = manifest.tile_shape;
  found["sigma_scale"] = manifest.sigma_scale;
  found["classes"] = manifest.classes;
  found["lesion_class"] = manifest.lesion_class;
  found["least_lesion_probability"] = manifest.least_lesion_probability;
  found["least_white_matter"] = manifest.least_white_matter;
  found["least_lesion_mm3"] = manifest.least_lesion_mm3;
  found["white_matter"] = manifest.white_matter;
  std::vector<double> thresholds;
  for (const double found_ml : {0.0, 2.5, 2.7, 7.1, 19.9, 20.0, 99.0}) {
    thresholds.push_back(manifest.lesion_threshold.at(found_ml));
  }
  found["thresholds"] = thresholds;
  found["least_piece"] = manifest.lesion_threshold.least_piece;
  found["precisions"] = manifest.precisions();
  found["golden"] = py::make_tuple(manifest.golden.path, manifest.golden.sha256, manifest.golden.size);
  return found;
}

py::dict golden_dict(const std::string& npz, const std::string& manifest) {
  const GoldenTile golden = decode_golden(npz, decode_manifest(manifest));
  py::dict found;
  found["inputs"] = golden.inputs;
  found["voxels"] = golden.voxels;
  found["fused"] = golden.fused;
  found["probability"] = golden.probability;
  return found;
}

py::tuple golden_deviation(const std::string& npz, const std::string& manifest, const py::array_t<float>& fused,
                           const py::array_t<float>& probability) {
  const Manifest decoded = decode_manifest(manifest);
  const GoldenTile golden = decode_golden(npz, decoded);
  const Deviation apart = golden.deviation(fused.data(), probability.data(), decoded.tile_voxels());
  return py::make_tuple(apart.maximum, apart.rms);
}

py::dict unzip(const std::string& bytes) {
  const Zip zip = Zip::of_bytes(bytes);
  py::dict found;
  for (const ZipEntry& entry : zip.entries()) found[py::str(entry.name)] = py::bytes(zip.read(entry));
  return found;
}

}  // namespace

PYBIND11_MODULE(_capi_parts, module) {
  // A function's static lives as long as the module.
  py::register_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const Failure& failure) {
      py::set_error(PyExc_RuntimeError, (std::string(failure.kind().name) + ": " + failure.message()).c_str());
    }
  });
  module.def("tile_starts", &tile_starts);
  module.def("axis_windows", &axis_windows);
  module.def("plan", &plan);
  module.def("fit", &fit);
  module.def("describe_grid", &describe_grid);
  module.def("common_grid", &common_grid);
  module.def("relate", &relate);
  module.def("decode_manifest", &manifest_dict);
  module.def("decode_golden", &golden_dict);
  module.def("golden_deviation", &golden_deviation);
  module.def("golden_limit", [](const std::string& precision) {
    const Deviation limit = golden_limit(precision);
    return py::make_tuple(limit.maximum, limit.rms);
  });
  module.def("sha256", [](const py::bytes& bytes) { return sha256(std::string(bytes)); });
  module.def("unzip", &unzip);
  module.def("usable_cores", &usable_cores);
  module.def("cache_store", [](const std::string& folder, const std::string& key, const py::bytes& bytes) {
    return EngineCache(folder).store(key, bytes);
  });
  module.def("cache_load", [](const std::string& folder, const std::string& key) -> py::object {
    const std::optional<std::string> found = EngineCache(folder).load(key);
    return found ? py::object(py::bytes(*found)) : py::none();
  });
}
