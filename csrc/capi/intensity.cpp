// What: percentiles of the foreground, exact, interpolated between ranks in double precision.
// Layout: integers are counted per value, floats are copied and partitioned: one value of each rank either way.
// Source: as rmr_sdk/intensity.py.
#include "intensity.h"

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "failure.h"

namespace rmr::capi {
namespace {

constexpr double kTopPercentile = 99.0, kMedian = 50.0, kLeastRange = 1e-30, kMostStretch = 4.0;

[[noreturn]] void flat() {
  fail(kStudyError, "no two voxels above zero differ, so there is nothing to see.",
       "Check that this is the contrast it should be and that a mask has not emptied it.");
}

// The value of a percentile between those of the ranks around it.
template <class ValueAt>
double interpolated(double percentile, int64_t count, const ValueAt& value_at) {
  const double rank = percentile / 100.0 * static_cast<double>(count - 1);
  const auto lower = static_cast<int64_t>(std::floor(rank)), upper = static_cast<int64_t>(std::ceil(rank));
  const double low = value_at(lower), high = value_at(upper);
  return low + (high - low) * (rank - static_cast<double>(lower));
}

// How often each positive value of an integer type occurs.
template <class T>
class Ranks {
 public:
  explicit Ranks(const Source<T>& source) : counts_(size_t{std::numeric_limits<T>::max()} + 1) {
    for_each_voxel(source, [&](T value) {
      if (value > 0) ++counts_[static_cast<size_t>(value)];
    });
  }
  void keep_above(double floor) {
    for (size_t value = 0; value < counts_.size() && static_cast<double>(value) <= floor; ++value) counts_[value] = 0;
  }
  int64_t size() const {
    int64_t total = 0;
    for (const int64_t count : counts_) total += count;
    return total;
  }
  double at(int64_t rank) const {
    size_t value = 0;
    while (value + 1 < counts_.size() && rank >= counts_[value]) rank -= counts_[value++];
    return static_cast<double>(value);
  }

 private:
  std::vector<int64_t> counts_;
};

// The positive values, partitioned as far as asked.
template <>
class Ranks<float> {
 public:
  explicit Ranks(const Source<float>& source) {
    int64_t positive = 0;
    for_each_voxel(source, [&](float value) { positive += value > 0.0f ? 1 : 0; });
    values_.reserve(static_cast<size_t>(positive));
    for_each_voxel(source, [&](float value) {
      if (value > 0.0f) values_.push_back(value);
    });
  }
  void keep_above(double floor) {
    const auto below = [&](float value) { return static_cast<double>(value) <= floor; };
    values_.erase(std::remove_if(values_.begin(), values_.end(), below), values_.end());
  }
  int64_t size() const { return static_cast<int64_t>(values_.size()); }
  double at(int64_t rank) {
    std::nth_element(values_.begin(), values_.begin() + rank, values_.end());
    return static_cast<double>(values_[static_cast<size_t>(rank)]);
  }

 private:
  std::vector<float> values_;
};

template <class T>
IntensityLine fit_robust(const Source<T>& source, const Normalisation& normalisation) {
  Ranks<T> ranks(source);
  if (ranks.size() == 0) flat();
  const auto at = [&](int64_t rank) { return ranks.at(rank); };
  const double top = interpolated(kTopPercentile, ranks.size(), at);
  IntensityLine line;
  line.floor = static_cast<double>(static_cast<float>(normalisation.floor_fraction * top));
  ranks.keep_above(line.floor);
  const double bright = interpolated(normalisation.percentile, ranks.size(), at);
  if (bright < kLeastRange) flat();
  line.scale = 1.0 / bright;
  line.high = normalisation.high;
  const double most = normalisation.most_median;
  const double middle = most < 1.0 ? interpolated(kMedian, ranks.size(), at) : 0.0;
  if (middle > most * bright) {
    const double spread = std::max(bright - middle, (1.0 - most) * bright / kMostStretch);
    line.scale = (1.0 - most) / spread;
    line.offset = line.stretch = bright - spread / (1.0 - most);
  }
  return line;
}

template <class T>
IntensityLine fit_minmax(const Source<T>& source) {
  T least = *source.data, most = least;
  for_each_voxel(source, [&](T value) {
    least = std::min(least, value);
    most = std::max(most, value);
  });
  const double low = std::max(static_cast<double>(least), 0.0), high = std::max(static_cast<double>(most), 0.0);
  if (high - low < kLeastRange) flat();
  IntensityLine line;
  line.scale = 1.0 / (high - low);
  line.offset = line.floor = low;
  line.high = 1.0;
  return line;
}

}  // namespace

IntensityLine fit_normalisation(const Voxels& voxels, const Normalisation& normalisation) {
  return visit(voxels, [&](const auto& source) {
    return normalisation.robust ? fit_robust(source, normalisation) : fit_minmax(source);
  });
}

}  // namespace rmr::capi
