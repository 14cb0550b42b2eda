// What: where a volume is above a threshold, in blocks: per block the bounding box of its voxels above it.
// Layout: bounds (block d, block h, block w, 6) int32: low corner, high corner (exclusive); all zero for an empty
// block. Source: own.
#pragma once

#include <cmath>
#include <cstdlib>

#include "source.h"
#include "vector.h"

namespace rmr {

// The greatest float32 not above `threshold`: a float32 is above one exactly when it is above the other.
inline float float_threshold(double threshold) {
  const float nearest = static_cast<float>(threshold);
  return nearest > threshold ? std::nextafter(nearest, -INFINITY) : nearest;
}

template <class T>
RMR_HD inline bool above(T value, float threshold) {
  return static_cast<float>(value) > threshold;
}

template <class T>
RMR_HD inline bool any_above(const T* row, int64_t stride, int64_t begin, int64_t end, float threshold) {
  bool any = false;
  for (int64_t w = begin; w < end; ++w) any |= above(row[w * stride], threshold);
  return any;
}

// Voxels from low to high (exclusive); empty where high.w is 0.
struct Box {
  int32_t low[3], high[3];

  RMR_HD bool empty() const { return high[2] == 0; }
  RMR_HD void join(const Box& other) {
    if (other.empty()) return;
    const bool first = empty();
    for (int i = 0; i < 3; ++i) {
      low[i] = first || other.low[i] < low[i] ? other.low[i] : low[i];
      high[i] = first || other.high[i] > high[i] ? other.high[i] : high[i];
    }
  }
};

template <class T>
struct Occupancy {
  Source<T> source;
  float threshold;
  int64_t block;
  int32_t* bounds;
  Index3 blocks;

  RMR_HD void operator()(int64_t bd, int64_t bh, int64_t bw) const {
    Box box{};
    for (int64_t line = 0; line < block * block; ++line) box.join(scan(bd, bh, bw, line));
    int32_t* out = bounds + ((bd * blocks.h + bh) * blocks.w + bw) * 6;
    for (int i = 0; i < 3; ++i) {
      out[i] = box.low[i];
      out[3 + i] = box.high[i];
    }
  }

  // The voxels of one line of a block, along w.
  RMR_HD Box scan(int64_t bd, int64_t bh, int64_t bw, int64_t line) const {
    const int64_t d = bd * block + line / block, h = bh * block + line % block;
    if (d >= source.shape.d || h >= source.shape.h) return Box{};
    int64_t begin = bw * block, end = begin + block < source.shape.w ? begin + block : source.shape.w;
    const uint32_t mask = short_line(d, h, begin, end);
    if (mask == 0) return Box{};
    if (end - begin <= kShort) {
      const int64_t start = begin;
      while (!(mask >> (begin - start) & 1u)) ++begin;
      while (!(mask >> (end - 1 - start) & 1u)) --end;
    } else {
      const T* row = source.row(d, h);
      while (!above(row[begin * source.stride.w], threshold)) ++begin;
      while (!above(row[(end - 1) * source.stride.w], threshold)) --end;
    }
    return {{static_cast<int32_t>(d), static_cast<int32_t>(h), static_cast<int32_t>(begin)},
            {static_cast<int32_t>(d + 1), static_cast<int32_t>(h + 1), static_cast<int32_t>(end)}};
  }

 private:
  static constexpr int64_t kShort = 8;

  // One bit a voxel for lines of up to 8 voxels; for longer ones whether there is any.
  RMR_HD uint32_t short_line(int64_t d, int64_t h, int64_t begin, int64_t end) const {
    const T* row = source.row(d, h);
    const int64_t count = end - begin;
    uint32_t mask = 0;
    if (count == kShort && source.stride.w == 1) {
      T values[kShort];
      load(row + begin, values);
      for (int i = 0; i < kShort; ++i) mask |= static_cast<uint32_t>(above(values[i], threshold)) << i;
    } else if (count <= kShort) {
      for (int64_t i = 0; i < count; ++i) {
        mask |= static_cast<uint32_t>(above(row[(begin + i) * source.stride.w], threshold)) << i;
      }
    } else {
      mask = any_above(row, source.stride.w, begin, end, threshold);
    }
    return mask;
  }
};

// Occupancy with 64 threads a block of voxels, seen so that lines run along the axis on which the source is closest to
// contiguous.
template <class T>
struct OccupancyTeam {
  static constexpr int kBlocks = 4, kLanes = 64, kPlanes = 8, kThreads = kBlocks * kLanes, kPhases = 3,
                       kLeastBlocks = 3;
  struct Shared {
    Box at[kThreads];
  };

  Occupancy<T> op;  // its axes in the order of `axis`; bounds are written in the order of the volume
  Index3 step;      // int32 elements of bounds from one block to the next
  int axis[3];

  explicit OccupancyTeam(const Occupancy<T>& of) : op(of), axis{0, 1, 2} {
    const int64_t shape[3] = {of.source.shape.d, of.source.shape.h, of.source.shape.w};
    const int64_t stride[3] = {of.source.stride.d, of.source.stride.h, of.source.stride.w};
    const int64_t blocks[3] = {of.blocks.d, of.blocks.h, of.blocks.w};
    const int64_t steps[3] = {6 * blocks[1] * blocks[2], 6 * blocks[2], 6};
    for (const int other : {1, 0}) {
      if (shape[other] > 1 && std::abs(stride[other]) < std::abs(stride[axis[2]])) axis[2] = other;
    }
    axis[0] = axis[2] == 0 ? 1 : 0;
    axis[1] = 3 - axis[0] - axis[2];
    op.source.shape = {shape[axis[0]], shape[axis[1]], shape[axis[2]]};
    op.source.stride = {stride[axis[0]], stride[axis[1]], stride[axis[2]]};
    op.blocks = {blocks[axis[0]], blocks[axis[1]], blocks[axis[2]]};
    step = {steps[axis[0]], steps[axis[1]], steps[axis[2]]};
  }

  int64_t teams() const { return (op.blocks.d * op.blocks.h * op.blocks.w + kBlocks - 1) / kBlocks; }

  RMR_HD void phase(int phase, int64_t team, int thread, Shared& shared) const {
    const int64_t index = team * kBlocks + thread / kLanes;
    const int lane = thread % kLanes;
    if (index >= op.blocks.d * op.blocks.h * op.blocks.w) return;
    if (phase == 0) {
      shared.at[thread] = scan(index, lane);
    } else if (phase == 1 && lane % kPlanes == 0) {
      shared.at[thread] = joined(shared, thread, 1);
    } else if (phase == 2 && lane == 0) {
      put(index, joined(shared, thread, kPlanes));
    }
  }

 private:
  RMR_HD Index3 place(int64_t index) const {
    const int64_t plane = index / op.blocks.w;
    return {plane / op.blocks.h, plane % op.blocks.h, index % op.blocks.w};
  }
  RMR_HD Box scan(int64_t index, int lane) const {
    const Index3 at = place(index);
    Box box{};
    for (int64_t line = lane; line < op.block * op.block; line += kLanes) box.join(op.scan(at.d, at.h, at.w, line));
    return box;
  }
  RMR_HD static Box joined(const Shared& shared, int thread, int apart) {
    Box box = shared.at[thread];
    for (int i = 1; i < kPlanes; ++i) box.join(shared.at[thread + i * apart]);
    return box;
  }
  RMR_HD void put(int64_t index, const Box& box) const {
    const Index3 at = place(index);
    int32_t* out = op.bounds + at.d * step.d + at.h * step.h + at.w * step.w;
    for (int i = 0; i < 3; ++i) {
      out[axis[i]] = box.low[i];
      out[3 + axis[i]] = box.high[i];
    }
  }
};

}  // namespace rmr
