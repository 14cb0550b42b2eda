// What: the choice of common_grid.h, axis by axis.
// Layout: thick slices are divided into whole parts, so that each acquired slice is a slice of the common grid.
// Source: own.
#include "common_grid.h"

#include <algorithm>
#include <cmath>

namespace rmr::capi {
namespace {

// Parts of suitable spacing that a voxel has along an axis; 0 where no whole number suits.
int64_t parts_of(double own_mm, double wanted_mm, double tolerance) {
  constexpr double kRoundingMm = 1e-4;
  const double parts = std::max(std::nearbyint(own_mm / wanted_mm), 1.0);
  const double apart = std::abs(own_mm / parts - wanted_mm);
  return apart <= tolerance * wanted_mm + kRoundingMm ? static_cast<int64_t>(parts) : 0;
}

}  // namespace

std::optional<Grid> choose_grid(const Grid& native, const Manifest& manifest) {
  const Point3 own = native.spacing_mm();
  Triple parts{}, divisions{};
  for (size_t axis = 0; axis < 3; ++axis) {
    parts[axis] = parts_of(own[axis], manifest.spacing_mm[axis], manifest.spacing_tolerance);
    divisions[axis] = std::max(parts[axis], int64_t{1});
  }
  const bool divides = *std::max_element(parts.begin(), parts.end()) > 1;
  const bool suits = *std::min_element(parts.begin(), parts.end()) > 0;
  if (suits && !divides) return std::nullopt;
  const Grid divided = divides ? native.subdivided(divisions) : native;
  if (suits) return divided;
  Point3 spacing = divided.spacing_mm();
  for (size_t axis = 0; axis < 3; ++axis) {
    if (parts[axis] == 0) spacing[axis] = manifest.spacing_mm[axis];
  }
  return divided.respaced(spacing);
}

}  // namespace rmr::capi
