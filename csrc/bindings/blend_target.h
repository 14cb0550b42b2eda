// What: the arrays of a blend, checked once and kept alive while tiles are added.
// Layout: as in ops/blend.h.
// Source: own.
#pragma once

#include <algorithm>
#include <optional>

#include "array.h"

namespace rmr::bindings {

template <class Backend>
class BlendTarget {
 public:
  using Handle = typename Backend::Handle;
  using Optional = std::optional<Handle>;

  BlendTarget(const Handle& slot, const Handle& first, const Handle& last, const Optional& ring, const Optional& labels,
              const Optional& chosen, const Optional& fused, const Triple& shape, int32_t classes, int32_t chosen_class,
              bool complement, float gain, float bias)
      : shape_{shape[0], shape[1], shape[2]} {
    slab_.shape = index3(shape);
    slab_.classes = classes;
    slab_.chosen_class = chosen_class;
    slab_.complement = complement;
    slab_.gain = gain;
    slab_.bias = bias;
    check_classes(chosen.has_value(), labels.has_value());
    slab_.slot = keep(slot, "slot").template input<int32_t>({shape[0], shape[1]});
    slab_.first = keep(first, "first").template input<int32_t>({shape[0], shape[1]});
    slab_.last = keep(last, "last").template input<int32_t>({shape[0], shape[1]});
    slab_.labels = output<uint8_t>(labels, "labels", shape_);
    slab_.chosen = output<float>(chosen, "chosen", shape_);
    slab_.fused = output<float>(fused, "fused", shape_);
    set_ring(ring);
    slab_.aligned = is_aligned();
  }

  template <class Place>
  void blend(const Optional& probability, const Optional& fused, const Handle& window_d, const Handle& window_h,
             const Handle& window_w, int32_t tile, const Triple& origin, const Triple& low, const Triple& high,
             const Optional& flaws, Place place) {
    follow_producers(place);
    const Array d = Backend::view(window_d, "window_d", place), h = Backend::view(window_h, "window_h", place),
                w = Backend::view(window_w, "window_w", place);
    const Triple size{d.shape().at(0), h.shape().at(0), w.shape().at(0)};
    check_region(origin, low, high, size);
    if (probability.has_value() != (slab_.classes > 0)) {
      throw py::value_error("probability must be given exactly when there are classes.");
    }
    if (fused.has_value() != (slab_.fused != nullptr)) {
      throw py::value_error("fused must be given exactly when there is a fused output.");
    }
    const auto run = [&](auto type) {
      using P = decltype(type);
      Prediction<P> prediction{};
      prediction.window_d = d.input<float>({-1});
      prediction.window_h = h.input<float>({-1});
      prediction.window_w = w.input<float>({-1});
      prediction.origin = index3(origin);
      prediction.low = index3(low);
      prediction.high = index3(high);
      prediction.tile = tile;
      if (flaws) prediction.flaws = Backend::view(*flaws, "flaws", place).template output<int32_t>({2});
      if (probability) set_probability(prediction, Backend::view(*probability, "probability", place), size);
      if (fused) set_fused(prediction, Backend::view(*fused, "fused", place), size);
      Backend::blend(Blend<P>{slab_, prediction}, place);
    };
    if (!probability && !fused) return;
    visit_float(Backend::view(probability ? *probability : *fused, probability ? "probability" : "fused"), run);
  }

  template <class Place>
  void clear(Place place) {
    follow_producers(place);
    Backend::clear(Clear{slab_}, place);
  }

 private:
  template <class Place>
  void follow_producers(Place place) {
    for (; !producers_.empty(); producers_.pop_back()) Backend::follow(producers_.back(), place);
  }

  void check_classes(bool chosen, bool labels) const {
    const int32_t lowest = slab_.complement ? 1 : 0;
    if (slab_.classes < 0 || slab_.classes > 256) throw py::value_error("classes must be 0 to 256.");
    if (labels != (slab_.classes > 0)) {
      throw py::value_error("labels must be given exactly when there are classes.");
    }
    if (chosen != (slab_.chosen_class >= 0)) {
      throw py::value_error("chosen must be given exactly when chosen_class is not -1.");
    }
    if (chosen && (slab_.chosen_class < lowest || slab_.chosen_class >= slab_.classes)) {
      throw py::value_error("chosen_class must be -1 or a class that is added up.");
    }
  }

  void set_ring(const std::optional<Handle>& ring) {
    const int64_t channels = slab_.classes > 0 ? slab_.channels() : 0;
    if (ring.has_value() != (channels > 0)) {
      throw py::value_error("ring must be given exactly when a class needs it.");
    }
    if (!ring) return;
    const Array array = keep(*ring, "ring");
    slab_.ring = array.output<float>({-1, channels, -1});
    slab_.ring_width = array.shape()[2];
    if (slab_.ring_width != shape_[2] && !is_padded()) {
      throw py::value_error("ring must be as wide as the volume, or a multiple of " + std::to_string(kBlendWidth) +
                            " and at least " + std::to_string(kBlendWidth - 1) + " wider.");
    }
    Backend::check_slots(slab_.slot, slab_.first, shape_[0] * shape_[1], array.shape()[0]);
  }

  bool is_padded() const {
    return slab_.ring_width % kBlendWidth == 0 && slab_.ring_width >= shape_[2] + kBlendWidth - 1;
  }

  // Whether words can be used: see ops/blend.h.
  bool is_aligned() const {
    const bool ring = slab_.ring == nullptr || (is_padded() && fits<Word16>(slab_.ring));
    return ring && fits<Word16>(slab_.fused) && fits<Word16>(slab_.chosen) && fits<Word4>(slab_.labels);
  }

  void check_region(const Triple& origin, const Triple& low, const Triple& high, const Triple& size) const {
    for (size_t axis = 0; axis < 3; ++axis) {
      const bool in_tile = low[axis] >= origin[axis] && high[axis] <= origin[axis] + size[axis];
      const bool in_volume = low[axis] >= 0 && high[axis] <= shape_[axis];
      if (!in_tile || !in_volume || low[axis] >= high[axis]) {
        throw py::value_error("low and high must bound voxels that lie in the tile and in the volume.");
      }
    }
  }
  template <class P>
  void set_probability(Prediction<P>& prediction, const Array& array, const Triple& size) const {
    prediction.probability = array.rows<P>({slab_.classes, size[0], size[1], size[2]});
    prediction.class_stride = array.stride(0);
    prediction.stride = {array.stride(1), array.stride(2), 1};
  }

  template <class P>
  static void set_fused(Prediction<P>& prediction, const Array& array, const Triple& size) {
    prediction.fused = array.rows<P>({size[0], size[1], size[2]});
    prediction.fused_stride = {array.stride(0), array.stride(1), 1};
  }

  Array keep(const Handle& handle, const char* name) {
    owners_.push_back(handle);
    Array array = Backend::view(handle, name);
    if (array.producer() != 0) producers_.push_back(array.producer());
    return array;
  }

  template <class T>
  T* output(const Optional& handle, const char* name, const std::vector<int64_t>& shape) {
    return handle ? keep(*handle, name).template output<T>(shape) : nullptr;
  }

  std::vector<int64_t> shape_;
  Slab slab_{};
  std::vector<py::object> owners_;
  std::vector<uintptr_t> producers_;  // streams that the first tile has to follow
};

}  // namespace rmr::bindings
