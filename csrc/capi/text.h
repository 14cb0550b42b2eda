// What: numbers and names in messages.
// Layout: -
// Twin: the f-strings of rmr_sdk.
#pragma once

#include <cstdio>
#include <string>
#include <vector>

namespace rmr::capi {

inline std::string number(double value, const char* format = "%.4g") {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

inline std::string quoted(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "\"" : ", \"") + name + "\"";
  return text.empty() ? "none" : text;
}

// "a x b x c".
template <class Values>
std::string times(const Values& values, const char* format = "%.4g") {
  std::string text;
  for (const auto& value : values) text += (text.empty() ? "" : " x ") + number(static_cast<double>(value), format);
  return text;
}

}  // namespace rmr::capi
