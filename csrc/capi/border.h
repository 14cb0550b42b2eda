// What: the caller's structs, checked at the border and turned into those of the inside.
// Layout: a struct of another size is one of an older or a newer header: what is missing is 0, what is unknown must be.
// Source: own; the rule is that of Linux's copy_struct_from_user.
#pragma once

#include <rmr_sdk/rmr.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <string>
#include <vector>

#include "failure.h"
#include "run.h"

namespace rmr::capi {

// The size of a struct in version 1 of the ABI: the least that a caller can pass.
template <class T>
inline constexpr uint32_t kFirstSize = sizeof(T);
template <>
inline constexpr uint32_t kFirstSize<rmr_open_options> = offsetof(rmr_open_options, lesion_threshold);
template <>
inline constexpr uint32_t kFirstSize<rmr_outputs> = offsetof(rmr_outputs, lesion_threshold);

[[noreturn]] inline void refuse_usage(const std::string& problem, const std::string& fix) {
  fail(kUsageError, problem, fix);
}

template <class T>
void check_struct(const T* given, const char* name) {
  if (!given) refuse_usage(std::string(name) + " is NULL.", "Pass a pointer to a struct.");
  if (given->struct_size < kFirstSize<T>) {
    refuse_usage(std::string(name) + " has the struct_size " + std::to_string(given->struct_size) + ".",
                 "Set it to sizeof, or use the _init function.");
  }
}

// A copy of a struct that goes in.
template <class T>
T taken(const T* given, const char* name) {
  check_struct(given, name);
  const auto* bytes = reinterpret_cast<const char*>(given);
  const size_t known = std::min<size_t>(given->struct_size, sizeof(T));
  if (std::any_of(bytes + known, bytes + given->struct_size, [](char byte) { return byte != 0; })) {
    refuse_usage(std::string(name) + " has fields that this version of the library does not know.",
                 "Leave them 0, or update the library.");
  }
  T copy{};
  std::memcpy(&copy, given, known);
  return copy;
}

// Fills in a struct that comes out, as far as the caller knows it.
template <class T>
void give(T* wanted, T values) {
  const uint32_t size = wanted->struct_size;
  values.struct_size = size;
  std::memcpy(wanted, &values, std::min<size_t>(size, sizeof(T)));
}

template <size_t N>
void copy_text(char (&into)[N], const std::string& text) {
  const size_t length = std::min(text.size(), N - 1);
  std::memcpy(into, text.data(), length);
  into[length] = '\0';
}

std::vector<Contrast> take_study(const rmr_study* study);

// A view of an array of the caller with the shape of the reference; without data where it is not wanted.
WritableVoxels take_array(const rmr_array& array, const char* name, Dtype dtype, const Triple& shape);

EngineRequest take_open_options(const rmr_open_options& options);

// The manifest with the caller's levels in place of its own.
Manifest with_levels(Manifest manifest, const rmr_open_options& options);

RunOptions take_run_options(const rmr_run_options& options, const Manifest& manifest, int threads);

}  // namespace rmr::capi
