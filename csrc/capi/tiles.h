// What: tiles: which boxes of a volume the engine sees, and the share that each of them has in every voxel.
// Layout: tiles in z order, then along axis 1, then along axis 2; a voxel's share is the product of three windows.
// Twin: rmr_sdk/tiles.py.
#pragma once

#include <array>
#include <functional>
#include <vector>

#include "manifest.h"

namespace rmr::capi {

// A tile along one axis.
struct AxisTile {
  int64_t origin, low, high;  // first voxel, which may lie outside; what it contributes to
  std::vector<float> window;
};

struct Tile {
  Triple origin, low, high;
  std::array<const float*, 3> windows;  // in the plan's axes
};

struct TilePlan {
  Triple shape{}, tile_shape{};
  std::array<std::vector<AxisTile>, 3> axes;
  std::vector<Tile> tiles;
  int64_t skipped = 0;
};

void check_overlap(double overlap);
std::vector<int64_t> tile_starts(int64_t extent, int64_t size, double overlap);
std::vector<std::vector<float>> axis_windows(const std::vector<int64_t>& starts, int64_t size, int64_t extent,
                                             double sigma_scale);

// Covers the box from `low` to `high` of a volume; tiles for which `holds` is false are left out.
using HoldsForeground = std::function<bool(const Triple& low, const Triple& high)>;
TilePlan plan_tiles(const Triple& low, const Triple& high, const Triple& shape, const Triple& tile_shape,
                    double overlap, double sigma_scale, const HoldsForeground& holds);

}  // namespace rmr::capi
