// What: connected components (26 neighbours) on the CPU, in memory that grows with the number of runs.
// Layout: rows in C order; a component's root is its first run, so its first voxel is the component's first.
// Source: as in ops/components.h.
#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>

#include "kernels.h"

namespace rmr::cpu {
namespace {

class Runs {
 public:
  Runs(const uint8_t* labels, const Index3& shape, uint8_t value) : shape_(shape) {
    first_of_row_.reserve(static_cast<size_t>(shape.d * shape.h) + 1);
    for (int64_t row = 0; row < shape.d * shape.h; ++row) {
      first_of_row_.push_back(runs_.size());
      scan_row(labels + row * shape.w, row, value);
    }
    first_of_row_.push_back(runs_.size());
    parent_.resize(runs_.size());
    std::iota(parent_.begin(), parent_.end(), size_t{0});
  }

  void connect() {
    for (int64_t d = 0; d < shape_.d; ++d) {
      for (int64_t h = 0; h < shape_.h; ++h) {
        connect_rows(d, h, d, h - 1);
        for (int64_t step = -1; step <= 1; ++step) connect_rows(d, h, d - 1, h + step);
      }
    }
  }

  const std::vector<Run>& all() const { return runs_; }

  // The run that a voxel is in; there must be one.
  size_t of_voxel(int64_t voxel) const {
    const int64_t row = voxel / shape_.w, w = voxel % shape_.w;
    size_t run = first_of_row_[static_cast<size_t>(row)];
    while (runs_[run].end <= w) ++run;
    return run;
  }

  size_t root(size_t run) {
    while (parent_[run] != run) run = parent_[run] = parent_[parent_[run]];
    return run;
  }

 private:
  void scan_row(const uint8_t* row, int64_t index, uint8_t value) {
    int64_t begin = 0;
    while (const void* hit = std::memchr(row + begin, value, static_cast<size_t>(shape_.w - begin))) {
      begin = static_cast<const uint8_t*>(hit) - row;
      int64_t end = begin + 1;
      while (end < shape_.w && row[end] == value) ++end;
      runs_.push_back({index, begin, end});
      if (end == shape_.w) break;
      begin = end;
    }
  }

  void connect_rows(int64_t d, int64_t h, int64_t other_d, int64_t other_h) {
    if (other_d < 0 || other_h < 0 || other_h >= shape_.h) return;
    const size_t row = static_cast<size_t>(d * shape_.h + h);
    const size_t other = static_cast<size_t>(other_d * shape_.h + other_h);
    size_t i = first_of_row_[row], j = first_of_row_[other];
    while (i < first_of_row_[row + 1] && j < first_of_row_[other + 1]) {
      if (touch(runs_[i], runs_[j])) unite(i, j);
      runs_[i].end < runs_[j].end ? ++i : ++j;
    }
  }

  void unite(size_t a, size_t b) {
    a = root(a);
    b = root(b);
    parent_[std::max(a, b)] = std::min(a, b);
  }

  Index3 shape_;
  std::vector<Run> runs_;
  std::vector<size_t> first_of_row_;
  std::vector<size_t> parent_;
};

void add_run(Component& component, const Run& run, const Index3& shape, const float* probability) {
  const int64_t length = run.end - run.begin;
  component.voxels += length;
  component.centroid[0] += static_cast<double>(length * (run.row / shape.h));
  component.centroid[1] += static_cast<double>(length * (run.row % shape.h));
  component.centroid[2] += static_cast<double>(index_sum(run));
  if (!probability) return;
  const float* row = probability + run.row * shape.w;
  for (int64_t w = run.begin; w < run.end; ++w) component.mean += static_cast<double>(row[w]);
}

// The order of `found`, largest first, then by first voxel.
std::vector<size_t> ranking(const std::vector<Component>& found) {
  std::vector<size_t> order(found.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return found[a].voxels > found[b].voxels; });
  return order;
}

// How many pairs of a voxel of a component and a neighbour of it (26) there are, by the neighbour's label.
class Neighbours {
 public:
  Neighbours(const uint8_t* labels, const Index3& shape, uint8_t value) : labels_(labels), shape_(shape), own_(value) {}

  void add(const Run& run) {
    const int64_t d = run.row / shape_.h, h = run.row % shape_.h;
    for (int64_t row_d = std::max<int64_t>(d - 1, 0); row_d <= std::min(d + 1, shape_.d - 1); ++row_d) {
      for (int64_t row_h = std::max<int64_t>(h - 1, 0); row_h <= std::min(h + 1, shape_.h - 1); ++row_h) {
        const uint8_t* row = labels_ + (row_d * shape_.h + row_h) * shape_.w;
        const int64_t end = std::min(run.end + 1, shape_.w);
        for (int64_t w = std::max<int64_t>(run.begin - 1, 0); w < end; ++w) {
          counts_[row[w]] += std::min(w + 2, run.end) - std::max(w - 1, run.begin);
        }
      }
    }
  }

  // 0 where nothing else touches them; of equals the least.
  uint8_t commonest() const {
    const auto found = others();
    return static_cast<uint8_t>(std::max_element(found.begin(), found.end()) - found.begin());
  }

  bool has_share(uint8_t label, double least) const {
    const auto found = others();
    const auto all = std::accumulate(found.begin(), found.end(), int64_t{0});
    return static_cast<double>(found[label]) >= least * static_cast<double>(all);
  }

 private:
  std::array<int64_t, 256> others() const {
    std::array<int64_t, 256> found = counts_;
    found[own_] = 0;
    return found;
  }

  const uint8_t* labels_;
  Index3 shape_;
  uint8_t own_;
  std::array<int64_t, 256> counts_{};
};

// Components in the order of their first voxels, and which of them each run belongs to.
struct Found {
  std::vector<Component> components;
  std::vector<size_t> of_run;
};

Found collect(Runs& runs, const Index3& shape, const float* probability) {
  Found found;
  found.of_run.resize(runs.all().size());
  for (size_t i = 0; i < runs.all().size(); ++i) {
    const Run& run = runs.all()[i];
    const size_t root = runs.root(i);
    if (root == i) {
      found.of_run[i] = found.components.size();
      found.components.push_back({0, run.row * shape.w + run.begin, {0.0, 0.0, 0.0}, 0.0});
    }
    found.of_run[i] = found.of_run[root];
    add_run(found.components[found.of_run[i]], run, shape, probability);
  }
  for (Component& component : found.components) {
    const double voxels = static_cast<double>(component.voxels);
    for (double& axis : component.centroid) axis /= voxels;
    component.mean /= voxels;
  }
  return found;
}

void fill(uint8_t* labels, const Index3& shape, const Run& run, uint8_t value) {
  std::fill(labels + run.row * shape.w + run.begin, labels + run.row * shape.w + run.end, value);
}

// Drop the pieces of components that are too small beside the largest piece of the same one; return their voxels.
int64_t drop_pieces(uint8_t* labels, const Index3& shape, uint8_t value, double share, const Runs& whole,
                    const Found& found, const std::vector<uint8_t>& instead) {
  Runs runs(labels, shape, value);
  runs.connect();
  const Found pieces = collect(runs, shape, nullptr);
  std::vector<size_t> parent;
  std::vector<int64_t> largest(found.components.size(), 0);
  for (const Component& piece : pieces.components) {
    parent.push_back(found.of_run[whole.of_voxel(piece.first)]);
    largest[parent.back()] = std::max(largest[parent.back()], piece.voxels);
  }
  int64_t dropped = 0;
  for (size_t i = 0; i < runs.all().size(); ++i) {
    const size_t piece = pieces.of_run[i], of = parent[piece];
    const auto voxels = static_cast<double>(pieces.components[piece].voxels);
    if (voxels >= share * static_cast<double>(largest[of])) continue;
    fill(labels, shape, runs.all()[i], instead[of]);
    dropped += runs.all()[i].end - runs.all()[i].begin;
  }
  return dropped;
}

}  // namespace

std::vector<Component> components(const uint8_t* labels, const Index3& shape, uint8_t value, const float* probability,
                                  int32_t* map) {
  Runs runs(labels, shape, value);
  runs.connect();

  const Found found = collect(runs, shape, probability);
  std::vector<Component> ranked;
  std::vector<int32_t> id(found.components.size());
  for (const size_t index : ranking(found.components)) {
    ranked.push_back(found.components[index]);
    id[index] = static_cast<int32_t>(ranked.size());
  }
  if (map) {
    std::fill(map, map + shape.d * shape.h * shape.w, 0);
    for (size_t i = 0; i < runs.all().size(); ++i) {
      const Run& run = runs.all()[i];
      std::fill(map + run.row * shape.w + run.begin, map + run.row * shape.w + run.end, id[found.of_run[i]]);
    }
  }
  return ranked;
}

Dropped drop_components(uint8_t* labels, const Index3& shape, uint8_t value, const float* probability,
                        const Least& least) {
  Runs runs(labels, shape, value);
  runs.connect();
  const Found found = collect(runs, shape, probability);

  // What becomes of one does not depend on another: no two components touch.
  std::vector<std::vector<Run>> runs_of(found.components.size());
  for (size_t i = 0; i < runs.all().size(); ++i) runs_of[found.of_run[i]].push_back(runs.all()[i]);
  Dropped dropped;
  std::vector<uint8_t> instead(found.components.size(), value);
  for (size_t i = 0; i < found.components.size(); ++i) {
    const bool sure = found.components[i].mean >= least.probability && found.components[i].voxels >= least.voxels;
    if (sure && least.share <= 0.0 && least.voxel <= 0.0) continue;
    Neighbours around(labels, shape, value);
    for (const Run& run : runs_of[i]) around.add(run);
    const bool stays = sure && around.has_share(least.around, least.share);
    instead[i] = around.commonest();
    int64_t changed = 0;
    for (const Run& run : runs_of[i]) {
      const int64_t row = run.row * shape.w;
      for (int64_t at = row + run.begin; at < row + run.end; ++at) {
        if (stays && static_cast<double>(probability[at]) >= least.voxel) continue;
        labels[at] = instead[i];
        ++changed;
      }
    }
    dropped.components += changed == found.components[i].voxels;
    dropped.voxels += changed;
  }
  if (least.voxel > 0.0 && least.piece > 0.0) {
    dropped.voxels += drop_pieces(labels, shape, value, least.piece, runs, found, instead);
  }
  return dropped;
}

}  // namespace rmr::cpu
