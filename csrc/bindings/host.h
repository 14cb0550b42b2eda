// What: the ops on NumPy arrays, on `threads` threads of the shared pool, without the GIL.
// Layout: as in ops.h.
// Source: own.
#pragma once

#include "ops.h"

namespace rmr::bindings {

struct Host {
  using Handle = py::array;
  using Place = int;
  static constexpr const char* kPlace = "threads";
  static constexpr Place kDefault = 1;

  static Array view(const Handle& handle, const char* name) { return Array::of_host(handle, name); }
  static Array view(const Handle& handle, const char* name, Place) { return view(handle, name); }
  static void follow(uintptr_t, Place) {}

  static void check_slots(const int32_t* slot, const int32_t* first, int64_t rows, int64_t slots) {
    for (int64_t row = 0; row < rows; ++row) {
      const bool missing = first[row] >= 0 && slot[row] < 0;
      if (missing || slot[row] >= slots) throw py::value_error("slot must lie in the ring.");
    }
  }

  template <class Op>
  static void extract(const Op& op, Place threads) {
    run(threads, [&] { cpu::extract(op, threads); });
  }
  template <class Op>
  static void blend(const Op& op, Place threads) {
    run(threads, [&] { cpu::blend(op, threads); });
  }
  static void clear(const Clear& op, Place threads) {
    run(threads, [&] { cpu::clear(op, threads); });
  }
  template <class Op>
  static void occupancy(const Op& op, Place threads) {
    run(threads, [&] { cpu::occupancy(op, threads); });
  }
  template <class Op>
  static void resample(const Op& op, Place threads) {
    run(threads, [&] { cpu::resample(op, threads); });
  }

 private:
  template <class Body>
  static void run(Place threads, const Body& body) {
    if (threads < 1 || threads > 256) throw py::value_error("threads must be 1 to 256.");
    const py::gil_scoped_release release;
    body();
  }
};

}  // namespace rmr::bindings
