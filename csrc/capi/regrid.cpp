// What: the arguments of the resampling kernels.
// Layout: as in csrc/ops/resample.h.
// Source: own.
#include "regrid.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "failure.h"

namespace rmr::capi {
namespace {

constexpr double kAreaFactor = 1.5, kMostSteps = 64.0;

// Sub-positions along a target axis: one per source voxel that a step along it passes, rounded up.
int64_t steps_along(const IndexMap& map, int axis) {
  const double steps = std::ceil(std::hypot(map.at[0][axis], map.at[1][axis], map.at[2][axis]) - 1e-3);
  if (!(steps <= kMostSteps)) {
    fail(kGeometryError, "its voxels are more than 64 times smaller than those of the grid it is brought to.",
         "Resample it beforehand.");
  }
  return std::max(int64_t{1}, static_cast<int64_t>(steps));
}

}  // namespace

void regrid(const Voxels& voxels, const Grid& source, const Grid& target, Interpolation mode, int threads, void* out) {
  const IndexMap map = index_map(source, target);
  const Index3 size = index3(target.shape());
  visit(voxels, [&](const auto& from) {
    using T = typename std::decay_t<decltype(from)>::Value;
    if (mode == Interpolation::kNearest) {
      cpu::resample(ResampleNearest<T>{from, map, static_cast<T*>(out), size}, threads);
    } else if (mode == Interpolation::kLinear) {
      cpu::resample(ResampleLinear<T>{from, map, static_cast<float*>(out), size}, threads);
    } else {
      const Index3 steps{steps_along(map, 0), steps_along(map, 1), steps_along(map, 2)};
      cpu::resample(ResampleArea<T>{from, map, static_cast<float*>(out), size, steps}, threads);
    }
  });
}

Interpolation image_mode(const Grid& source, const Grid& target) {
  const IndexMap map = index_map(source, target);
  double most = 0.0;
  for (const auto& row : map.at) {
    most = std::max(most, std::sqrt(row[0] * row[0] + row[1] * row[1] + row[2] * row[2]));
  }
  return most > kAreaFactor ? Interpolation::kArea : Interpolation::kLinear;
}

}  // namespace rmr::capi
