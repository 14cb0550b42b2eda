// What: sample a volume on another grid: nearest voxel, trilinear, or the average over a target voxel's footprint.
// Layout: source of any strides; target (d, h, w) C-contiguous; the matrix maps a target index to a source index.
// Source: a voxel reaches half a voxel beyond its centre and the outermost voxels are continued to there, as in ITK's
//         interpolators; outside the result is zero. The footprint is sampled trilinearly at regular sub-positions.
#pragma once

#include "source.h"

namespace rmr {

struct IndexMap {
  double at[3][4];
};

struct Point {
  double d, h, w;
};

// Coordinates are rounded to 2^-24 voxels (adding 1.5 * 2^28 leaves no finer bits), so that rounding noise of an
// affine decides neither which side of a voxel's border a point lies on nor whether it is inside.
RMR_HD inline double snap(double coordinate) {
  constexpr double kShift = 402653184.0;
  return (coordinate + kShift) - kShift;
}

RMR_HD inline double map_axis(const double* row, double d, double h, double w) {
  return snap(row[0] * d + row[1] * h + row[2] * w + row[3]);
}

RMR_HD inline Point map_index(const IndexMap& map, double d, double h, double w) {
  return {map_axis(map.at[0], d, h, w), map_axis(map.at[1], d, h, w), map_axis(map.at[2], d, h, w)};
}

RMR_HD inline int64_t floor_index(double coordinate) {
  const int64_t towards_zero = static_cast<int64_t>(coordinate);
  return towards_zero - (coordinate < static_cast<double>(towards_zero) ? 1 : 0);
}

RMR_HD inline bool inside(double coordinate, int64_t extent) {
  return coordinate >= -0.5 && coordinate < static_cast<double>(extent) - 0.5;
}

RMR_HD inline bool inside(const Point& point, const Index3& shape) {
  return inside(point.d, shape.d) && inside(point.h, shape.h) && inside(point.w, shape.w);
}

// The two voxels around a coordinate that is inside, and how far it is on the way from the lower to the upper one.
struct Neighbours {
  int64_t lower, upper;
  float fraction;
};

RMR_HD inline Neighbours neighbours(double coordinate, int64_t extent) {
  const int64_t floor = floor_index(coordinate);
  return {floor < 0 ? 0 : floor, floor + 1 < extent ? floor + 1 : extent - 1,
          static_cast<float>(coordinate - static_cast<double>(floor))};
}

RMR_HD inline float mix(float a, float b, float fraction) { return a + (b - a) * fraction; }

template <class T>
RMR_HD inline float mix_row(const T* row, int64_t stride, const Neighbours& w) {
  return mix(static_cast<float>(row[w.lower * stride]), static_cast<float>(row[w.upper * stride]), w.fraction);
}

template <class T>
RMR_HD inline float sample_linear(const Source<T>& source, const Point& point) {
  const Neighbours d = neighbours(point.d, source.shape.d), h = neighbours(point.h, source.shape.h),
                   w = neighbours(point.w, source.shape.w);
  const int64_t stride = source.stride.w;
  const float front = mix(mix_row(source.row(d.lower, h.lower), stride, w),
                          mix_row(source.row(d.lower, h.upper), stride, w), h.fraction);
  const float back = mix(mix_row(source.row(d.upper, h.lower), stride, w),
                         mix_row(source.row(d.upper, h.upper), stride, w), h.fraction);
  return mix(front, back, d.fraction);
}

// The value at a voxel of the grid that `map` leads from; zero outside the source.
template <class T>
RMR_HD inline float sample_at(const Source<T>& source, const IndexMap& map, const Index3& at) {
  const Point point = map_index(map, static_cast<double>(at.d), static_cast<double>(at.h), static_cast<double>(at.w));
  return inside(point, source.shape) ? sample_linear(source, point) : 0.0f;
}

template <class T>
struct ResampleNearest {
  Source<T> source;
  IndexMap map;
  T* target;
  Index3 size;

  RMR_HD void operator()(int64_t d, int64_t h, int64_t w) const {
    const Point point = map_index(map, static_cast<double>(d), static_cast<double>(h), static_cast<double>(w));
    T value = 0;
    if (inside(point, source.shape)) {
      value = source.at(floor_index(point.d + 0.5), floor_index(point.h + 0.5), floor_index(point.w + 0.5));
    }
    target[(d * size.h + h) * size.w + w] = value;
  }
};

template <class T>
struct ResampleLinear {
  Source<T> source;
  IndexMap map;
  float* target;
  Index3 size;

  RMR_HD void operator()(int64_t d, int64_t h, int64_t w) const {
    target[(d * size.h + h) * size.w + w] = sample_at(source, map, {d, h, w});
  }
};

// `steps` sub-positions per target axis; those outside the source do not count, and a target voxel whose centre is
// outside is zero.
template <class T>
struct ResampleArea {
  static constexpr int kLeastBlocks = 2;

  Source<T> source;
  IndexMap map;
  float* target;
  Index3 size;
  Index3 steps;

  RMR_HD void operator()(int64_t d, int64_t h, int64_t w) const {
    const double cd = static_cast<double>(d), ch = static_cast<double>(h), cw = static_cast<double>(w);
    const bool counts = inside(map_index(map, cd, ch, cw), source.shape);
    target[(d * size.h + h) * size.w + w] = counts ? average(cd, ch, cw) : 0.0f;
  }

 private:
  RMR_HD static double offset(int64_t i, int64_t count) {
    return (static_cast<double>(i) + 0.5) / static_cast<double>(count) - 0.5;
  }
  RMR_HD float average(double d, double h, double w) const {
    double sum = 0.0;
    int64_t count = 0;
    for (int64_t i = 0; i < steps.d; ++i) {
      for (int64_t j = 0; j < steps.h; ++j) {
        for (int64_t k = 0; k < steps.w; ++k) {
          const Point point = map_index(map, d + offset(i, steps.d), h + offset(j, steps.h), w + offset(k, steps.w));
          if (!inside(point, source.shape)) continue;
          sum += static_cast<double>(sample_linear(source, point));
          ++count;
        }
      }
    }
    return count > 0 ? static_cast<float>(sum / static_cast<double>(count)) : 0.0f;
  }
};

}  // namespace rmr
