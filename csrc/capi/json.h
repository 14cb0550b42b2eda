// What: the fields of a JSON object, each with its type and its limits; what is wrong is said with the field's name.
// Layout: a Json is one value and the path to it from the top.
// Twin: what msgspec does for rmr_sdk/manifest.py.
#pragma once

#include <rapidjson/document.h>

#include <string>
#include <vector>

namespace rmr::capi {

class Json {
 public:
  Json(const rapidjson::Value& value, std::string path) : value_(value), path_(std::move(path)) {}

  bool has(const char* name) const;  // there, and not null
  Json at(const char* name) const;   // refused where it is not there
  std::vector<Json> items(size_t least, size_t most) const;

  using Matches = bool (*)(const std::string&);
  std::string text(Matches matches, size_t most) const;
  int64_t integer(int64_t least, int64_t most) const;
  double real(double least, double most) const;
  double real(const char* name, double otherwise, double least, double most) const;  // a field with a default

  [[noreturn]] void refuse(const std::string& problem) const;

 private:
  const rapidjson::Value& value_;
  std::string path_;
};

// Reads a document; refuses what is not one JSON object.
void parse_json(const std::string& text, rapidjson::Document& document);

}  // namespace rmr::capi
