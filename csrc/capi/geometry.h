// What: grids: where the voxels of a volume lie in the world, and the permutation that brings one to an orientation.
// Layout: array axis n belongs to affine column n; the world is RAS mm; index 0 is the centre of the first voxel.
// Twin: rmr_sdk/geometry.py.
#pragma once

#include <array>
#include <string>

#include "../ops/resample.h"
#include "manifest.h"

namespace rmr::capi {

using Affine = std::array<std::array<double, 4>, 4>;
using Point3 = std::array<double, 3>;

inline Index3 index3(const Triple& triple) { return {triple[0], triple[1], triple[2]}; }

class Grid {
 public:
  Grid(const Triple& shape, const Affine& affine);  // refuses what makes no sense

  const Triple& shape() const { return shape_; }
  const Affine& affine() const { return affine_; }
  int64_t voxels() const { return shape_[0] * shape_[1] * shape_[2]; }
  Point3 spacing_mm() const;
  double voxel_ml() const;
  std::string orientation() const;
  std::string text() const;  // without the position

  Point3 world(const Point3& index) const;
  bool matches(const Grid& other, double tolerance_mm) const;
  bool same_place(const Grid& other) const;  // to a hundredth of the other's voxel
  double coverage_of(const Grid& other) const;
  Grid respaced(const Point3& spacing_mm) const;
  Grid subdivided(const Triple& parts) const;

 private:
  Triple shape_;
  Affine affine_;
};

struct AxisMap {
  std::array<size_t, 3> order;
  std::array<bool, 3> flips;
  Grid source, grid;
};

AxisMap reorient(const Grid& grid, const std::string& codes);

// From a target voxel index to the source voxel index at the same place.
IndexMap index_map(const Grid& source, const Grid& target);

}  // namespace rmr::capi
