// What: the module rmr_sdk._C.
// Layout: host ops at the top; device ops in the submodule `cuda` when built with CUDA.
// Source: own.
#include "host.h"

#ifdef RMR_WITH_CUDA
#include "device.h"
#endif

namespace rmr::bindings {
namespace {

bool any_above(const py::array& source, double threshold, const Triple& low, const Triple& high) {
  return visit_source(Array::of_host(source, "source"), [&](const auto& from) {
    const Triple shape{from.shape.d, from.shape.h, from.shape.w};
    for (size_t axis = 0; axis < 3; ++axis) {
      if (low[axis] < 0 || high[axis] > shape[axis]) throw py::value_error("low and high must lie in the source.");
    }
    const py::gil_scoped_release release;
    return cpu::any_above(from, float_threshold(threshold), index3(low), index3(high));
  });
}

py::tuple components(const py::array& labels, const std::optional<py::array>& probability,
                     const std::optional<py::array>& ids, uint8_t value) {
  const Array volume = Array::of_host(labels, "labels");
  const Index3 shape = volume.shape3();
  const uint8_t* voxels = volume.input<uint8_t>({-1, -1, -1});
  const float* weight =
      probability ? Array::of_host(*probability, "probability").input<float>(volume.shape()) : nullptr;
  int32_t* map = ids ? Array::of_host(*ids, "ids").output<int32_t>(volume.shape()) : nullptr;
  std::vector<cpu::Component> found;
  {
    const py::gil_scoped_release release;
    found = cpu::components(voxels, shape, value, weight, map);
  }
  const auto count = static_cast<py::ssize_t>(found.size());
  py::array_t<int64_t> sizes(count);
  py::array_t<double> centroids({count, py::ssize_t{3}});
  py::array_t<double> means(count);
  for (py::ssize_t i = 0; i < count; ++i) {
    const cpu::Component& component = found[static_cast<size_t>(i)];
    sizes.mutable_at(i) = component.voxels;
    means.mutable_at(i) = component.mean;
    for (py::ssize_t axis = 0; axis < 3; ++axis) centroids.mutable_at(i, axis) = component.centroid[axis];
  }
  return py::make_tuple(sizes, centroids, means);
}

py::tuple drop_components(const py::array& labels, const py::array& probability, uint8_t value, double least,
                          uint8_t around, double least_around, double least_voxel, int64_t least_voxels,
                          double least_piece) {
  const Array volume = Array::of_host(labels, "labels");
  const Index3 shape = volume.shape3();
  uint8_t* voxels = volume.output<uint8_t>({-1, -1, -1});
  const float* weight = Array::of_host(probability, "probability").input<float>(volume.shape());
  cpu::Dropped dropped;
  {
    const py::gil_scoped_release release;
    const cpu::Least needed{least, around, least_around, least_voxel, least_voxels, least_piece};
    dropped = cpu::drop_components(voxels, shape, value, weight, needed);
  }
  return py::make_tuple(dropped.components, dropped.voxels);
}

}  // namespace

PYBIND11_MODULE(_C, module) {
  module.doc() = "Native kernels of rmr_sdk: tile extraction, blending, foreground, components, resampling.";
  bind_ops<Host>(module);
  module.def("any_above", &any_above, py::arg("source").noconvert(), py::kw_only(), py::arg("threshold"),
             py::arg("low"), py::arg("high"));
  module.def("components", &components, py::arg("labels").noconvert(), py::arg("probability").noconvert() = py::none(),
             py::arg("ids").noconvert() = py::none(), py::kw_only(), py::arg("value"));
  module.def("drop_components", &drop_components, py::arg("labels").noconvert(), py::arg("probability").noconvert(),
             py::kw_only(), py::arg("value"), py::arg("least"), py::arg("around") = 0, py::arg("least_around") = 0.0,
             py::arg("least_voxel") = 0.0, py::arg("least_voxels") = 0, py::arg("least_piece") = 0.0);
#ifdef RMR_WITH_CUDA
  py::module_ cuda = module.def_submodule("cuda", "The kernels on device memory.");
  raise_device_errors();
  bind_ops<Device>(cuda);
  module.attr("built_with_cuda") = true;
  module.def("cuda_device_count", &rmr::cuda::device_count);
#else
  module.attr("built_with_cuda") = false;
  module.def("cuda_device_count", [] { return 0; });
#endif
}

}  // namespace rmr::bindings
