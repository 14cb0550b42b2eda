// What: the ops on device memory: any object with __cuda_array_interface__, on the stream given as an integer.
// Layout: as in ops.h. Nothing is allocated, copied or waited for; the caller keeps the arrays until the stream is
//         done. Where an array names the stream that it is being computed on, ours follows that one.
// Source: https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html, version 3
#pragma once

#include "ops.h"

namespace rmr::bindings {

struct Device {
  using Handle = py::object;
  using Place = uintptr_t;
  static constexpr const char* kPlace = "stream";
  static constexpr Place kDefault = 0;

  // An array that the current device reaches.
  static Array view(const Handle& handle, const char* name) {
    Array array = Array::of_device(handle, name);
    if (!array.empty()) check_place(array, cuda::locate(array.data()));
    return array;
  }
  static Array view(const Handle& handle, const char* name, Place stream) {
    Array array = view(handle, name);
    follow(array.producer(), stream);
    return array;
  }
  static void follow(uintptr_t producer, Place stream) {
    if (producer != 0 && producer != stream) cuda::follow(cuda_stream(stream), cuda_stream(producer));
  }

  // What lies in device memory cannot be looked at here: the caller answers for it.
  static void check_slots(const int32_t*, const int32_t*, int64_t, int64_t) {}

  template <class Op>
  static void extract(const Op& op, Place stream) {
    cuda::extract(op, cuda_stream(stream));
  }
  template <class Op>
  static void blend(const Op& op, Place stream) {
    cuda::blend(op, cuda_stream(stream));
  }
  static void clear(const Clear& op, Place stream) { cuda::clear(op, cuda_stream(stream)); }
  template <class Op>
  static void occupancy(const Op& op, Place stream) {
    cuda::occupancy(op, cuda_stream(stream));
  }
  template <class Op>
  static void resample(const Op& op, Place stream) {
    cuda::resample(op, cuda_stream(stream));
  }

 private:
  static void* cuda_stream(Place stream) { return reinterpret_cast<void*>(stream); }

  static void check_place(const Array& array, const cuda::Location& found) {
    if (found.kind == cuda::Location::kUnknown) {
      throw py::value_error(array.name() + " must be memory of the device, managed or page-locked memory.");
    }
    if (found.kind == cuda::Location::kDevice && found.device != found.current) {
      throw py::value_error(array.name() + " is on cuda:" + std::to_string(found.device) +
                            ", and the current device is cuda:" + std::to_string(found.current) + ".");
    }
  }
};

// Makes what CUDA reports an rmr_sdk.errors.DeviceError.
inline void raise_device_errors() {
  py::register_local_exception_translator([](std::exception_ptr thrown) {
    try {
      if (thrown) std::rethrow_exception(thrown);
    } catch (const cuda::Error& error) {
      constexpr int kMemory = 2;  // cudaErrorMemoryAllocation
      const bool memory = error.status() == kMemory;
      const py::object kind = py::module_::import("rmr_sdk.errors").attr(memory ? "DeviceMemoryError" : "DeviceError");
      const std::string problem = std::string("The GPU failed in ") + error.what() + ".";
      const char* fix = memory ? "Free device memory, or choose a bundle with smaller tiles."
                               : "Open the pipeline again, in a new process where it happens twice.";
      const py::object raised = kind(problem, fix, py::arg("status") = error.status());
      PyErr_SetObject(kind.ptr(), raised.ptr());
    }
  });
}

}  // namespace rmr::bindings
