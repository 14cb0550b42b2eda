// What: the Python face of the ops that run on host and on device memory.
// Layout: a Backend names its array handle and where an op runs (`threads` or `stream`), and launches the ops.
// Source: own.
#pragma once

#include <cmath>
#include <string>
#include <type_traits>

#include "blend_target.h"

namespace rmr::bindings {

template <class S>
using ValueOf = typename std::decay_t<S>::Value;

inline IndexMap index_map(const py::array& matrix) {
  const double* values = Array::of_host(matrix, "matrix").input<double>({3, 4});
  IndexMap map;
  for (int64_t i = 0; i < 12; ++i) {
    if (!std::isfinite(values[i])) throw py::value_error("matrix must be finite.");
    map.at[i / 4][i % 4] = values[i];
  }
  return map;
}

inline void check_not_empty(const Index3& shape) {
  if (shape.d < 1 || shape.h < 1 || shape.w < 1) throw py::value_error("source must not be empty.");
}

template <class Backend>
void bind_extract(py::module_& module) {
  using Handle = typename Backend::Handle;
  module.def(
      "extract",
      [](const Handle& source, const Handle& out, const Triple& origin, float scale, float offset, float low,
         float high, const std::optional<py::array>& matrix, const std::optional<Triple>& grid,
         typename Backend::Place place) {
        const Array tile = Backend::view(out, "out", place);
        const Index3 size = tile.shape3();
        const IntensityMap map{scale, offset, low, high};
        if (matrix.has_value() != grid.has_value()) throw py::value_error("matrix and grid must be given together.");
        visit_source(Backend::view(source, "source", place), [&](const auto& from) {
          using T = ValueOf<decltype(from)>;
          visit_float(tile, [&](auto element) {
            using O = decltype(element);
            O* data = tile.output<O>({-1, -1, -1});
            if (!matrix) {
              Backend::extract(Extract<T, O>{from, index3(origin), map, data, size}, place);
              return;
            }
            check_not_empty(from.shape);
            Backend::extract(
                ExtractSampled<T, O>{from, index_map(*matrix), index3(*grid), index3(origin), map, data, size}, place);
          });
        });
      },
      py::arg("source").noconvert(), py::arg("out").noconvert(), py::kw_only(), py::arg("origin"), py::arg("scale"),
      py::arg("offset"), py::arg("low"), py::arg("high"), py::arg("matrix").noconvert() = py::none(),
      py::arg("grid") = py::none(), py::arg(Backend::kPlace) = Backend::kDefault);
}

template <class Backend>
void bind_blend(py::module_& module) {
  using Handle = typename Backend::Handle;
  using Optional = std::optional<Handle>;
  using Target = BlendTarget<Backend>;
  py::class_<Target>(module, "BlendTarget", py::module_local())
      .def(py::init<const Handle&, const Handle&, const Handle&, const Optional&, const Optional&, const Optional&,
                    const Optional&, const Triple&, int32_t, int32_t, bool, float, float>(),
           py::arg("slot").noconvert(), py::arg("first").noconvert(), py::arg("last").noconvert(),
           py::arg("ring").noconvert(), py::arg("labels").noconvert(), py::arg("chosen").noconvert(),
           py::arg("fused").noconvert(), py::kw_only(), py::arg("shape"), py::arg("classes"), py::arg("chosen_class"),
           py::arg("complement"), py::arg("gain"), py::arg("bias"))
      .def("blend", &Target::template blend<typename Backend::Place>, py::arg("probability").noconvert(),
           py::arg("fused").noconvert(), py::arg("window_d").noconvert(), py::arg("window_h").noconvert(),
           py::arg("window_w").noconvert(), py::kw_only(), py::arg("tile"), py::arg("origin"), py::arg("low"),
           py::arg("high"), py::arg("flaws").noconvert() = py::none(), py::arg(Backend::kPlace) = Backend::kDefault)
      .def("clear", &Target::template clear<typename Backend::Place>, py::kw_only(),
           py::arg(Backend::kPlace) = Backend::kDefault);
}

template <class Backend>
void bind_occupancy(py::module_& module) {
  using Handle = typename Backend::Handle;
  module.def(
      "occupancy",
      [](const Handle& source, const Handle& bounds, double threshold, int64_t block, typename Backend::Place place) {
        if (block < 1) throw py::value_error("block must be positive.");
        const Array volume = Backend::view(source, "source", place);
        const Index3 shape = volume.shape3();
        const auto blocks = [&](int64_t extent) { return (extent + block - 1) / block; };
        const Index3 count{blocks(shape.d), blocks(shape.h), blocks(shape.w)};
        auto* out = Backend::view(bounds, "bounds", place).template output<int32_t>({count.d, count.h, count.w, 6});
        visit_source(volume, [&](const auto& from) {
          const float bar = float_threshold(threshold);
          Backend::occupancy(Occupancy<ValueOf<decltype(from)>>{from, bar, block, out, count}, place);
        });
      },
      py::arg("source").noconvert(), py::arg("bounds").noconvert(), py::kw_only(), py::arg("threshold"),
      py::arg("block"), py::arg(Backend::kPlace) = Backend::kDefault);
}

// Sub-positions along a target axis: one per source voxel that a step along it passes, rounded up.
inline int64_t steps_along(const IndexMap& map, int axis) {
  const double length = std::hypot(map.at[0][axis], map.at[1][axis], map.at[2][axis]);
  const double steps = std::ceil(length - 1e-3);
  if (steps > 64.0) throw py::value_error("matrix must not shrink an axis more than 64 times.");
  return steps < 1.0 ? 1 : static_cast<int64_t>(steps);
}

template <class Backend>
void bind_resample(py::module_& module) {
  using Handle = typename Backend::Handle;
  module.def(
      "resample",
      [](const Handle& source, const Handle& out, const py::array& matrix, const std::string& mode,
         typename Backend::Place place) {
        const Array target = Backend::view(out, "out", place);
        const Index3 size = target.shape3();
        const IndexMap map = index_map(matrix);
        visit_source(Backend::view(source, "source", place), [&](const auto& from) {
          using T = ValueOf<decltype(from)>;
          check_not_empty(from.shape);
          if (mode == "nearest") {
            T* data = target.output<T>({-1, -1, -1});
            Backend::resample(ResampleNearest<T>{from, map, data, size}, place);
          } else if (mode == "linear") {
            float* data = target.output<float>({-1, -1, -1});
            Backend::resample(ResampleLinear<T>{from, map, data, size}, place);
          } else if (mode == "area") {
            float* data = target.output<float>({-1, -1, -1});
            const Index3 steps{steps_along(map, 0), steps_along(map, 1), steps_along(map, 2)};
            Backend::resample(ResampleArea<T>{from, map, data, size, steps}, place);
          } else {
            throw py::value_error("mode must be nearest, linear or area, not " + mode + ".");
          }
        });
      },
      py::arg("source").noconvert(), py::arg("out").noconvert(), py::kw_only(), py::arg("matrix").noconvert(),
      py::arg("mode"), py::arg(Backend::kPlace) = Backend::kDefault);
}

template <class Backend>
void bind_ops(py::module_& module) {
  bind_extract<Backend>(module);
  bind_blend<Backend>(module);
  bind_occupancy<Backend>(module);
  bind_resample<Backend>(module);
}

}  // namespace rmr::bindings
