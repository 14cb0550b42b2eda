// What: the checks of json.h.
// Layout: -
// Source: parsing is RapidJSON's, iterative, so that deep nesting cannot exhaust the stack.
#include "json.h"

#include <cmath>

#include "failure.h"

namespace rmr::capi {
namespace {

[[noreturn]] void unreadable() {
  fail(kManifestError, "manifest.json is not readable JSON.", "Export the bundle again or restore the file.");
}

}  // namespace

void parse_json(const std::string& text, rapidjson::Document& document) {
  constexpr unsigned kFlags =
      rapidjson::kParseIterativeFlag | rapidjson::kParseFullPrecisionFlag | rapidjson::kParseValidateEncodingFlag;
  document.Parse<kFlags>(text.data(), text.size());
  if (document.HasParseError()) unreadable();
  if (!document.IsObject()) Json(document, "").refuse("expected an object");
}

bool Json::has(const char* name) const {
  if (!value_.IsObject()) refuse("expected an object");
  const auto found = value_.FindMember(name);
  return found != value_.MemberEnd() && !found->value.IsNull();
}

Json Json::at(const char* name) const {
  if (!has(name)) refuse(std::string("the field ") + name + " is missing");
  return {value_.FindMember(name)->value, path_.empty() ? name : path_ + "." + name};
}

std::vector<Json> Json::items(size_t least, size_t most) const {
  if (!value_.IsArray()) refuse("expected an array");
  if (value_.Size() < least || value_.Size() > most) refuse("a length of " + std::to_string(value_.Size()));
  std::vector<Json> found;
  for (rapidjson::SizeType i = 0; i < value_.Size(); ++i) {
    found.emplace_back(value_[i], path_ + "[" + std::to_string(i) + "]");
  }
  return found;
}

std::string Json::text(Matches matches, size_t most) const {
  if (!value_.IsString()) refuse("expected a string");
  std::string found(value_.GetString(), value_.GetStringLength());
  if (found.size() > most || !matches(found)) refuse("a string that this field cannot be");
  return found;
}

int64_t Json::integer(int64_t least, int64_t most) const {
  if (!value_.IsInt64()) refuse("expected a whole number");
  const int64_t found = value_.GetInt64();
  if (found < least || found > most) refuse("a number out of range: " + std::to_string(found));
  return found;
}

double Json::real(double least, double most) const {
  if (!value_.IsNumber()) refuse("expected a number");
  const double found = value_.GetDouble();
  if (!(found >= least && found <= most)) refuse("a number out of range");
  return found;
}

double Json::real(const char* name, double otherwise, double least, double most) const {
  return has(name) ? at(name).real(least, most) : otherwise;
}

void Json::refuse(const std::string& problem) const {
  const std::string where = path_.empty() ? "" : " at " + path_;
  fail(kManifestError, "manifest.json breaks its schema" + where + ": " + problem + ".", "See docs/bundle-format.md.");
}

}  // namespace rmr::capi
