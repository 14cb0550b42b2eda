// What: the arithmetic of geometry.h, in double precision and in the order of its twin.
// Layout: as in geometry.h.
// Source: own.
#include "geometry.h"

#include <algorithm>
#include <cmath>

#include "failure.h"
#include "text.h"

namespace rmr::capi {
namespace {

constexpr double kSingular = 1e-6, kSamePlace = 0.01;
constexpr int64_t kLattice = 32;
constexpr const char* kEnds[3] = {"LR", "PA", "IS"};
constexpr const char* kAffineFix = "Pass the affine that maps voxel indices to RAS millimetres.";

double determinant(const Affine& a) {
  return a[0][0] * (a[1][1] * a[2][2] - a[1][2] * a[2][1]) - a[0][1] * (a[1][0] * a[2][2] - a[1][2] * a[2][0]) +
         a[0][2] * (a[1][0] * a[2][1] - a[1][1] * a[2][0]);
}

void check_affine(const Affine& affine, const Point3& spacing) {
  for (const auto& row : affine) {
    for (const double value : row) {
      if (!std::isfinite(value)) fail(kGeometryError, "the affine holds NaN or infinite numbers.", kAffineFix);
    }
  }
  const auto& last = affine[3];
  if (last[0] != 0.0 || last[1] != 0.0 || last[2] != 0.0 || last[3] != 1.0) {
    fail(kGeometryError, "the last row of the affine is not 0 0 0 1.", kAffineFix);
  }
  Affine cosines = affine;
  for (size_t row = 0; row < 3; ++row) {
    for (size_t axis = 0; axis < 3; ++axis) cosines[row][axis] /= spacing[axis];
  }
  const bool flat = *std::min_element(spacing.begin(), spacing.end()) == 0.0;
  if (flat || !(std::abs(determinant(cosines)) >= kSingular)) {
    fail(kGeometryError, "the affine is singular: its axes do not span the space.", kAffineFix);
  }
}

// The world axis of each array axis: the pairing with the greatest sum of absolute cosines.
std::array<size_t, 3> closest_axes(const Affine& affine, const Point3& spacing) {
  std::array<size_t, 3> worlds{0, 1, 2}, best = worlds;
  double most = -1.0;
  do {
    double sum = 0.0;
    for (size_t axis = 0; axis < 3; ++axis) sum += std::abs(affine[worlds[axis]][axis] / spacing[axis]);
    if (sum > most) {
      most = sum;
      best = worlds;
    }
  } while (std::next_permutation(worlds.begin(), worlds.end()));
  return best;
}

size_t world_of(char code) { return code == 'L' || code == 'R' ? 0 : code == 'P' || code == 'A' ? 1 : 2; }

// Solves a x = b for four right-hand sides by elimination with partial pivoting.
Affine solve(Affine a, Affine b) {
  for (size_t k = 0; k < 4; ++k) {
    size_t pivot = k;
    for (size_t row = k + 1; row < 4; ++row) {
      if (std::abs(a[row][k]) > std::abs(a[pivot][k])) pivot = row;
    }
    std::swap(a[k], a[pivot]);
    std::swap(b[k], b[pivot]);
    for (size_t row = k + 1; row < 4; ++row) {
      const double factor = a[row][k] / a[k][k];
      for (size_t column = k; column < 4; ++column) a[row][column] -= factor * a[k][column];
      for (size_t column = 0; column < 4; ++column) b[row][column] -= factor * b[k][column];
    }
  }
  for (size_t row = 4; row-- > 0;) {
    for (size_t column = 0; column < 4; ++column) {
      for (size_t k = row + 1; k < 4; ++k) b[row][column] -= a[row][k] * b[k][column];
      b[row][column] /= a[row][row];
    }
  }
  return b;
}

}  // namespace

Grid::Grid(const Triple& shape, const Affine& affine) : shape_(shape), affine_(affine) {
  if (*std::min_element(shape.begin(), shape.end()) < 1) {
    fail(kGeometryError, "a volume needs three axes of at least one voxel, not the shape " + times(shape) + ".",
         "Pass one 3-D volume per contrast.");
  }
  check_affine(affine, spacing_mm());
}

Point3 Grid::spacing_mm() const {
  Point3 spacing{};
  for (size_t axis = 0; axis < 3; ++axis) {
    double sum = 0.0;
    for (size_t row = 0; row < 3; ++row) sum += affine_[row][axis] * affine_[row][axis];
    spacing[axis] = std::sqrt(sum);
  }
  return spacing;
}

double Grid::voxel_ml() const { return std::abs(determinant(affine_)) / 1000.0; }

std::string Grid::orientation() const {
  const auto worlds = closest_axes(affine_, spacing_mm());
  std::string codes;
  for (size_t axis = 0; axis < 3; ++axis) codes += kEnds[worlds[axis]][affine_[worlds[axis]][axis] > 0.0 ? 1 : 0];
  return codes;
}

std::string Grid::text() const {
  return times(shape_, "%.0f") + " voxels, " + times(spacing_mm()) + " mm, " + orientation();
}

Point3 Grid::world(const Point3& index) const {
  Point3 point{};
  for (size_t row = 0; row < 3; ++row) {
    double sum = 0.0;
    for (size_t axis = 0; axis < 3; ++axis) sum += index[axis] * affine_[row][axis];
    point[row] = sum + affine_[row][3];
  }
  return point;
}

bool Grid::matches(const Grid& other, double tolerance_mm) const {
  if (shape_ != other.shape_) return false;
  for (int corner = 0; corner < 8; ++corner) {
    Point3 index{};
    for (size_t axis = 0; axis < 3; ++axis) index[axis] = (corner >> axis & 1) != 0 ? double(shape_[axis] - 1) : 0.0;
    const Point3 here = world(index), there = other.world(index);
    for (size_t row = 0; row < 3; ++row) {
      if (!(std::abs(here[row] - there[row]) <= tolerance_mm)) return false;
    }
  }
  return true;
}

bool Grid::same_place(const Grid& other) const {
  const Point3 spacing = other.spacing_mm();
  return matches(other, kSamePlace * *std::min_element(spacing.begin(), spacing.end()));
}

double Grid::coverage_of(const Grid& other) const {
  const IndexMap map = index_map(*this, other);
  Triple points{};
  for (size_t axis = 0; axis < 3; ++axis) points[axis] = std::min(other.shape_[axis], kLattice);
  const auto at = [&](size_t axis, int64_t i) {
    return (double(i) + 0.5) * double(other.shape_[axis]) / double(points[axis]) - 0.5;
  };
  int64_t covered = 0;
  for (int64_t d = 0; d < points[0]; ++d) {
    for (int64_t h = 0; h < points[1]; ++h) {
      for (int64_t w = 0; w < points[2]; ++w) {
        const Point3 target{at(0, d), at(1, h), at(2, w)};
        bool inside = true;
        for (size_t row = 0; row < 3; ++row) {
          const double* m = map.at[row];
          const double index = m[0] * target[0] + m[1] * target[1] + m[2] * target[2] + m[3];
          inside = inside && index > -0.5 && index < double(shape_[row]) - 0.5;
        }
        covered += inside ? 1 : 0;
      }
    }
  }
  return double(covered) / double(points[0] * points[1] * points[2]);
}

Grid Grid::respaced(const Point3& spacing_mm) const {
  const Point3 own = this->spacing_mm();
  Affine affine = affine_;
  Triple shape{};
  Point3 middle{}, new_middle{};
  for (size_t axis = 0; axis < 3; ++axis) {
    const double factor = spacing_mm[axis] / own[axis];
    shape[axis] = std::max(static_cast<int64_t>(std::ceil(double(shape_[axis]) / factor - 1e-3)), int64_t{1});
    for (size_t row = 0; row < 3; ++row) affine[row][axis] *= factor;
    middle[axis] = double(shape_[axis] - 1) / 2;
    new_middle[axis] = double(shape[axis] - 1) / 2;
  }
  const Point3 centre = world(middle);
  for (size_t row = 0; row < 3; ++row) {
    double offset = 0.0;
    for (size_t axis = 0; axis < 3; ++axis) offset += affine[row][axis] * new_middle[axis];
    affine[row][3] = centre[row] - offset;
  }
  return {shape, affine};
}

Grid Grid::subdivided(const Triple& parts) const {
  Affine affine = affine_;
  Triple shape{};
  Point3 first{};
  for (size_t axis = 0; axis < 3; ++axis) {
    const int64_t beyond = (parts[axis] - 1) / 2;
    shape[axis] = (shape_[axis] - 1) * parts[axis] + 1 + 2 * beyond;
    for (size_t row = 0; row < 3; ++row) affine[row][axis] /= double(parts[axis]);
    first[axis] = -double(beyond) / double(parts[axis]);
  }
  const Point3 origin = world(first);
  for (size_t row = 0; row < 3; ++row) affine[row][3] = origin[row];
  return {shape, affine};
}

AxisMap reorient(const Grid& grid, const std::string& codes) {
  const std::string have = grid.orientation();
  std::array<size_t, 3> order{};
  std::array<bool, 3> flips{};
  Triple shape{};
  Affine affine = grid.affine();
  for (size_t axis = 0; axis < 3; ++axis) {
    const auto same_world = [&](char code) { return world_of(code) == world_of(codes[axis]); };
    const auto source = static_cast<size_t>(std::find_if(have.begin(), have.end(), same_world) - have.begin());
    order[axis] = source;
    flips[axis] = have[source] != codes[axis];
    shape[axis] = grid.shape()[source];
    for (size_t row = 0; row < 3; ++row) {
      const double step = grid.affine()[row][source];
      affine[row][axis] = flips[axis] ? -step : step;
      if (flips[axis]) affine[row][3] += step * double(shape[axis] - 1);
    }
  }
  return {order, flips, grid, Grid(shape, affine)};
}

IndexMap index_map(const Grid& source, const Grid& target) {
  const Affine solved = solve(source.affine(), target.affine());
  IndexMap map{};
  for (size_t row = 0; row < 3; ++row) std::copy(solved[row].begin(), solved[row].end(), map.at[row]);
  return map;
}

}  // namespace rmr::capi
