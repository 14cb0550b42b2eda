// What: the connected lesions of a volume of labels, largest first, and how many voxels each class has.
// Layout: labels and probabilities of any strides, in the manifest's orientation.
// Twin: rmr_sdk/measure.py and postprocess.py.
#pragma once

#include <vector>

#include "voxels.h"

namespace rmr::capi {

struct Lesion {
  int64_t voxels;
  double volume_ml, mean_probability;
  Point3 centroid_mm;
};

std::vector<Lesion> find_lesions(const Voxels& labels, const Voxels& probability, const Grid& grid, int lesion_class);

std::vector<int64_t> count_labels(const Voxels& labels, size_t classes);

}  // namespace rmr::capi
