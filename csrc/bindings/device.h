// What: the ops on device memory: any object with __cuda_array_interface__, on the stream given as an integer.
// Layout: as in ops.h. Nothing is allocated, copied or waited for; the caller keeps the arrays until the stream is
// done. Source: own.
#pragma once

#include "ops.h"

namespace rmr::bindings {

struct Device {
  using Handle = py::object;
  using Place = uintptr_t;
  static constexpr const char* kPlace = "stream";
  static constexpr Place kDefault = 0;

  static Array view(const Handle& handle, const char* name) { return Array::of_device(handle, name); }

  // What lies in device memory cannot be looked at here: the caller answers for it.
  static void check_slots(const int32_t*, const int32_t*, int64_t, int64_t) {}

  template <class Op>
  static void extract(const Op& op, Place stream) {
    cuda::extract(op, handle(stream));
  }
  template <class Op>
  static void blend(const Op& op, Place stream) {
    cuda::blend(op, handle(stream));
  }
  template <class Op>
  static void occupancy(const Op& op, Place stream) {
    cuda::occupancy(op, handle(stream));
  }
  template <class Op>
  static void resample(const Op& op, Place stream) {
    cuda::resample(op, handle(stream));
  }

 private:
  static void* handle(Place stream) { return reinterpret_cast<void*>(stream); }
};

}  // namespace rmr::bindings
