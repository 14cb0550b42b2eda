// What: arrays of the caller, checked at the door; every message names the argument.
// Layout: one view for NumPy arrays and for objects with __cuda_array_interface__; strides in bytes.
// Source: https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <string>
#include <vector>

#include "../kernels.h"

namespace rmr::bindings {

namespace py = pybind11;

using Triple = std::array<int64_t, 3>;

inline Index3 index3(const Triple& triple) { return {triple[0], triple[1], triple[2]}; }

// The type string of both array interfaces.
template <class T>
inline constexpr const char* kTypeCode = nullptr;
template <>
inline constexpr const char* kTypeCode<uint8_t> = "|u1";
template <>
inline constexpr const char* kTypeCode<int16_t> = "<i2";
template <>
inline constexpr const char* kTypeCode<uint16_t> = "<u2";
template <>
inline constexpr const char* kTypeCode<int32_t> = "<i4";
template <>
inline constexpr const char* kTypeCode<float> = "<f4";
template <>
inline constexpr const char* kTypeCode<double> = "<f8";
template <>
inline constexpr const char* kTypeCode<Half> = "<f2";

class Array {
 public:
  Array(std::string name, void* data, std::string code, int64_t item, std::vector<int64_t> shape,
        std::vector<int64_t> strides, bool writable, uintptr_t producer = 0);

  static Array of_host(const py::array& array, const char* name);
  static Array of_device(const py::object& object, const char* name);

  const std::string& name() const { return name_; }
  const void* data() const { return data_; }
  const std::vector<int64_t>& shape() const { return shape_; }
  bool empty() const;
  // The stream on which the elements are being computed; 0 where they are there.
  uintptr_t producer() const { return producer_; }
  Index3 shape3() const;
  template <class T>
  bool is() const {
    return code_ == kTypeCode<T>;
  }

  // The start of a C-contiguous array of this type and shape (-1: any length); `output` must be writable as well.
  template <class T>
  T* output(const std::vector<int64_t>& shape) const {
    if (!writable_) throw py::value_error(name_ + " must be writable.");
    return const_cast<T*>(input<T>(shape));
  }
  template <class T>
  const T* input(const std::vector<int64_t>& shape) const {
    check_type<T>();
    check_shape(shape);
    check_contiguous();
    return static_cast<const T*>(data_);
  }

  // A 3-D volume of any strides.
  template <class T>
  Source<T> source() const {
    check_type<T>();
    return {static_cast<const T*>(data_), shape3(), {stride(0), stride(1), stride(2)}};
  }

  // The start of an array whose last axis is contiguous; strides of the others through `stride`, in elements.
  template <class T>
  const T* rows(const std::vector<int64_t>& shape) const {
    check_type<T>();
    check_shape(shape);
    if (shape_.back() > 1 && strides_.back() != item_) {
      throw py::value_error(name_ + " must be contiguous along its last axis.");
    }
    return static_cast<const T*>(data_);
  }
  int64_t stride(size_t axis) const;

  [[noreturn]] void refuse_type(const std::string& accepted) const;

 private:
  template <class T>
  void check_type() const {
    if (!is<T>()) refuse_type(kTypeCode<T>);
  }
  void check_shape(const std::vector<int64_t>& shape) const;
  void check_contiguous() const;

  std::string name_;
  void* data_;
  std::string code_;
  int64_t item_;
  std::vector<int64_t> shape_;
  std::vector<int64_t> strides_;
  bool writable_;
  uintptr_t producer_;
};

// Calls f with an element of the array's type, float32 or float16.
template <class F>
auto visit_float(const Array& array, const F& f) {
  if (array.is<float>()) return f(float{});
  if (array.is<Half>()) return f(Half{});
  array.refuse_type("float32 or float16");
}

// Calls f with the array as a Source of its own type.
template <class F>
auto visit_source(const Array& array, const F& f) {
  if (array.is<uint8_t>()) return f(array.source<uint8_t>());
  if (array.is<int16_t>()) return f(array.source<int16_t>());
  if (array.is<uint16_t>()) return f(array.source<uint16_t>());
  if (array.is<float>()) return f(array.source<float>());
  array.refuse_type("uint8, int16, uint16 or float32");
}

}  // namespace rmr::bindings
