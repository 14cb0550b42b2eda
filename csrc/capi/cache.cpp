// What: reading and writing the entries of cache.h.
// Layout: as there; a new entry is written beside its place and renamed into it.
// Source: own.
#include "cache.h"

#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>

#include "sha256.h"

namespace rmr::capi {
namespace {

constexpr size_t kDigest = 64;

std::filesystem::path entry_of(const std::string& folder, const std::string& key) {
  return std::filesystem::path(folder) / "openvino-c" / (key + ".bin");
}

std::filesystem::path temporary_beside(const std::filesystem::path& entry) {
  static std::atomic<unsigned> count{0};
  const std::string unique = std::to_string(getpid()) + "." + std::to_string(count++);
  return entry.parent_path() / ("." + entry.stem().string() + "." + unique);
}

}  // namespace

std::optional<std::string> EngineCache::load(const std::string& key) const {
  if (!keeps()) return std::nullopt;
  std::ifstream file(entry_of(folder_, key), std::ios::binary);
  if (!file) return std::nullopt;
  std::string bytes{std::istreambuf_iterator<char>(file), {}};
  if (bytes.size() < kDigest) return std::nullopt;
  const std::string digest = bytes.substr(0, kDigest);
  bytes.erase(0, kDigest);
  if (sha256(bytes) != digest) return std::nullopt;
  return bytes;
}

std::string EngineCache::store(const std::string& key, const std::string& bytes) const {
  if (!keeps()) return "";
  const std::filesystem::path entry = entry_of(folder_, key), temporary = temporary_beside(entry);
  std::error_code problem;
  std::filesystem::create_directories(entry.parent_path(), problem);
  std::ofstream file(temporary, std::ios::binary);
  file << sha256(bytes) << bytes;
  file.close();
  const bool written = static_cast<bool>(file);
  if (written) std::filesystem::rename(temporary, entry, problem);
  if (written && !problem) return "";
  std::filesystem::remove(temporary, problem);
  return "The engine cache cannot be written: the engine is made anew at each opening. Pass a cache folder that can be "
         "written.";
}

}  // namespace rmr::capi
