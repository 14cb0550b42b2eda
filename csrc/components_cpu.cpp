// What: connected components (26 neighbours) on the CPU, in memory that grows with the number of runs.
// Layout: rows in C order; a component's root is its first run, so its first voxel is the component's first.
// Source: as in ops/components.h.
#include <algorithm>
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

}  // namespace

std::vector<Component> components(const uint8_t* labels, const Index3& shape, uint8_t value, const float* probability,
                                  int32_t* map) {
  Runs runs(labels, shape, value);
  runs.connect();

  std::vector<Component> found;
  std::vector<size_t> component_of(runs.all().size());
  for (size_t i = 0; i < runs.all().size(); ++i) {
    const Run& run = runs.all()[i];
    const size_t root = runs.root(i);
    if (root == i) {
      component_of[i] = found.size();
      found.push_back({0, run.row * shape.w + run.begin, {0.0, 0.0, 0.0}, 0.0});
    }
    component_of[i] = component_of[root];
    add_run(found[component_of[i]], run, shape, probability);
  }

  std::vector<Component> ranked;
  std::vector<int32_t> id(found.size());
  for (const size_t index : ranking(found)) {
    Component component = found[index];
    const double voxels = static_cast<double>(component.voxels);
    for (double& axis : component.centroid) axis /= voxels;
    component.mean /= voxels;
    ranked.push_back(component);
    id[index] = static_cast<int32_t>(ranked.size());
  }
  if (map) {
    std::fill(map, map + shape.d * shape.h * shape.w, 0);
    for (size_t i = 0; i < runs.all().size(); ++i) {
      const Run& run = runs.all()[i];
      std::fill(map + run.row * shape.w + run.begin, map + run.row * shape.w + run.end, id[component_of[i]]);
    }
  }
  return ranked;
}

}  // namespace rmr::cpu
