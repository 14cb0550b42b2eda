// What: the plan of tiles.h.
// Layout: as in tiles.h.
// Source: Gaussian importance as in nnU-Net, Isensee et al., Nat. Methods 18 (2021); the split per axis is ours.
#include "tiles.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "failure.h"
#include "text.h"

namespace rmr::capi {
namespace {

constexpr double kMostOverlap = 0.9;

int64_t floor_half(int64_t value) { return (value - (value < 0 ? 1 : 0)) / 2; }

// The logarithm of the Gaussian at each voxel of a tile.
std::vector<double> profile_of(int64_t size, double sigma_scale) {
  std::vector<double> profile(static_cast<size_t>(size));
  for (int64_t i = 0; i < size; ++i) {
    const double at = (double(i) - double(size - 1) / 2.0) / (sigma_scale * double(size));
    profile[static_cast<size_t>(i)] = -0.5 * (at * at);
  }
  return profile;
}

std::vector<AxisTile> plan_axis(int64_t low, int64_t high, int64_t extent, int64_t size, double overlap,
                                double sigma_scale) {
  std::vector<int64_t> starts = tile_starts(high - low, size, overlap);  // from `low` on
  if (high - low < size) {
    // Moved into the volume as far as it fits, so that it sees real surroundings before it sees padding.
    const int64_t first = low + starts[0];
    starts = {(extent >= size ? std::min(std::max(first, int64_t{0}), extent - size) : floor_half(extent - size)) -
              low};
  }
  std::vector<std::vector<float>> windows = axis_windows(starts, size, high - low, sigma_scale);
  std::vector<AxisTile> tiles;
  for (size_t i = 0; i < starts.size(); ++i) {
    const int64_t origin = low + starts[i];
    tiles.push_back({origin, std::max(origin, low), std::min(origin + size, high), std::move(windows[i])});
  }
  return tiles;
}

}  // namespace

void check_overlap(double overlap) {
  if (!(overlap >= 0.0 && overlap <= kMostOverlap)) {
    fail(kConfigError, "overlap " + number(overlap) + " is out of range.", "Give a number from 0 to 0.9.");
  }
}

std::vector<int64_t> tile_starts(int64_t extent, int64_t size, double overlap) {
  check_overlap(overlap);
  const int64_t room = extent - size;
  if (room <= 0) return {floor_half(room)};
  const auto step = std::max(int64_t{1}, static_cast<int64_t>(std::floor(double(size) * (1.0 - overlap) + 1e-9)));
  const int64_t count = (room + step - 1) / step;
  std::vector<int64_t> starts;
  for (int64_t i = 0; i <= count; ++i) starts.push_back(i * room / count);
  return starts;
}

std::vector<std::vector<float>> axis_windows(const std::vector<int64_t>& starts, int64_t size, int64_t extent,
                                             double sigma_scale) {
  const std::vector<double> profile = profile_of(size, sigma_scale);
  std::vector<std::vector<float>> windows(starts.size(), std::vector<float>(static_cast<size_t>(size)));
  std::vector<double> shares(starts.size());
  for (int64_t voxel = 0; voxel < extent; ++voxel) {
    const auto covers = [&](size_t i) { return voxel >= starts[i] && voxel < starts[i] + size; };
    const auto exponent = [&](size_t i) { return profile[static_cast<size_t>(voxel - starts[i])]; };
    // Relative to the greatest, so that a narrow Gaussian cannot vanish everywhere.
    double peak = -std::numeric_limits<double>::infinity(), sum = 0.0;
    for (size_t i = 0; i < starts.size(); ++i) peak = covers(i) ? std::max(peak, exponent(i)) : peak;
    for (size_t i = 0; i < starts.size(); ++i) sum += shares[i] = covers(i) ? std::exp(exponent(i) - peak) : 0.0;
    for (size_t i = 0; i < starts.size(); ++i) {
      if (covers(i)) windows[i][static_cast<size_t>(voxel - starts[i])] = static_cast<float>(shares[i] / sum);
    }
  }
  return windows;
}

TilePlan plan_tiles(const Triple& low, const Triple& high, const Triple& shape, const Triple& tile_shape,
                    double overlap, double sigma_scale, const HoldsForeground& holds) {
  check_overlap(overlap);
  TilePlan plan;
  plan.shape = shape;
  plan.tile_shape = tile_shape;
  for (size_t axis = 0; axis < 3; ++axis) {
    if (low[axis] == high[axis]) return plan;
  }
  for (size_t axis = 0; axis < 3; ++axis) {
    plan.axes[axis] = plan_axis(low[axis], high[axis], shape[axis], tile_shape[axis], overlap, sigma_scale);
  }
  for (const AxisTile& d : plan.axes[0]) {
    for (const AxisTile& h : plan.axes[1]) {
      for (const AxisTile& w : plan.axes[2]) {
        const Tile tile{{d.origin, h.origin, w.origin},
                        {d.low, h.low, w.low},
                        {d.high, h.high, w.high},
                        {d.window.data(), h.window.data(), w.window.data()}};
        holds(tile.low, tile.high) ? plan.tiles.push_back(tile) : static_cast<void>(++plan.skipped);
      }
    }
  }
  return plan;
}

}  // namespace rmr::capi
