// What: the box around the lesions, and the native search for components in it.
// Layout: the box is copied, C-contiguous.
// Source: own.
#include "lesions.h"

#include <algorithm>

namespace rmr::capi {
namespace {

struct Box {
  Triple low, high;  // high is exclusive; all zero where nothing was found

  int64_t voxels() const { return (high[0] - low[0]) * (high[1] - low[1]) * (high[2] - low[2]); }
  Triple shape() const { return {high[0] - low[0], high[1] - low[1], high[2] - low[2]}; }
};

Box box_around(const Source<uint8_t>& labels, uint8_t value) {
  Box box{{labels.shape.d, labels.shape.h, labels.shape.w}, {0, 0, 0}};
  for (int64_t d = 0; d < labels.shape.d; ++d) {
    for (int64_t h = 0; h < labels.shape.h; ++h) {
      const uint8_t* row = labels.row(d, h);
      for (int64_t w = 0; w < labels.shape.w; ++w) {
        if (row[w * labels.stride.w] != value) continue;
        const Triple at{d, h, w};
        for (size_t axis = 0; axis < 3; ++axis) {
          box.low[axis] = std::min(box.low[axis], at[axis]);
          box.high[axis] = std::max(box.high[axis], at[axis] + 1);
        }
      }
    }
  }
  return box.high[0] == 0 ? Box{} : box;
}

template <class T>
std::vector<T> cut(const Source<T>& source, const Box& box) {
  std::vector<T> values;
  values.reserve(static_cast<size_t>(box.voxels()));
  const Source<T> inside{source.row(box.low[0], box.low[1]) + box.low[2] * source.stride.w, index3(box.shape()),
                         source.stride};
  for_each_voxel(inside, [&](T value) { values.push_back(value); });
  return values;
}

}  // namespace

std::vector<Lesion> find_lesions(const Voxels& labels, const Voxels& probability, const Grid& grid, int lesion_class) {
  const auto value = static_cast<uint8_t>(lesion_class);
  const Box box = box_around(source_of<uint8_t>(labels), value);
  if (box.voxels() == 0) return {};
  const std::vector<uint8_t> inside = cut(source_of<uint8_t>(labels), box);
  const std::vector<float> weight = cut(source_of<float>(probability), box);
  std::vector<Lesion> lesions;
  for (const auto& found : cpu::components(inside.data(), index3(box.shape()), value, weight.data(), nullptr)) {
    Point3 centre{};
    for (size_t axis = 0; axis < 3; ++axis) centre[axis] = double(box.low[axis]) + found.centroid[axis];
    lesions.push_back({found.voxels, double(found.voxels) * grid.voxel_ml(), found.mean, grid.world(centre)});
  }
  return lesions;
}

std::vector<int64_t> count_labels(const Voxels& labels, size_t classes) {
  std::vector<int64_t> counts(256);
  for_each_voxel(source_of<uint8_t>(labels), [&](uint8_t label) { ++counts[label]; });
  counts.resize(classes);
  return counts;
}

}  // namespace rmr::capi
