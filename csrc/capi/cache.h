// What: compiled networks kept for the next opening, in a folder that the caller names.
// Layout: <folder>/openvino-c/<key>.bin: sha256 of the rest (64 hexadecimal digits), then the engine's own bytes.
// Twin: rmr_sdk/engines/cache.py.
#pragma once

#include <optional>
#include <string>

namespace rmr::capi {

class EngineCache {
 public:
  explicit EngineCache(const std::string& folder) : folder_(folder) {}  // empty: nothing is kept

  // None where there is no entry, or a damaged one that has to be made again.
  std::optional<std::string> load(const std::string& key) const;

  // Writes an entry as a whole or not at all; returns a warning where it could not, else nothing.
  std::string store(const std::string& key, const std::string& bytes) const;
  bool keeps() const { return !folder_.empty(); }

 private:
  std::string folder_;
};

}  // namespace rmr::capi
