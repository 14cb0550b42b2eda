// What: a bundle, a folder or one .zip: its manifest, and its files with every byte checked.
// Layout: as in docs/bundle-format.md.
// Twin: rmr_sdk/bundle.py.
#pragma once

#include <functional>
#include <string>

#include "manifest.h"

namespace rmr::capi {

class Bundle {
 public:
  static Bundle open(const std::string& path);

  const Manifest& manifest() const { return manifest_; }
  const std::string& hash() const { return hash_; }  // sha256 of the manifest's bytes

  std::string read(const BundleFile& file) const;
  const BundleFile& graph(const std::string& precision) const;  // which the manifest must list

 private:
  // Reads a file of `size` bytes exactly, or of `size` bytes at most where it is the manifest.
  using Read = std::function<std::string(const std::string& path, uint64_t size)>;

  explicit Bundle(Read read);

  Read read_;
  Manifest manifest_;
  std::string hash_;
};

}  // namespace rmr::capi
