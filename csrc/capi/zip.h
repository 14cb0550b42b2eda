// What: the entries of a zip archive, stored or deflated, each checked against its size and CRC.
// Layout: central directory at the end; no zip64, no encryption, no several disks.
// Twin: zipfile as rmr_sdk/bundle.py and golden.py use it. Source: PKWARE APPNOTE 6.3, sections 4.3 to 4.4.
#pragma once

#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

namespace rmr::capi {

// The archive is damaged, or packed in a way that is not read.
struct ZipError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct ZipEntry {
  std::string name;
  uint16_t method;  // 0: stored, 8: deflated
  uint32_t crc;
  uint64_t packed_size, size;
  uint64_t offset;  // of its local header
};

class Zip {
 public:
  // Reads `size` bytes from `offset`; throws where it cannot.
  using ReadAt = std::function<void(uint64_t offset, void* into, size_t size)>;

  Zip(ReadAt read_at, uint64_t size);
  static Zip of_bytes(const std::string& bytes);  // which must outlive it

  const std::vector<ZipEntry>& entries() const { return entries_; }
  const ZipEntry* find(const std::string& name) const;  // null where there is none
  std::string read(const ZipEntry& entry) const;

 private:
  std::string piece(uint64_t offset, uint64_t size) const;
  void read_directory();

  ReadAt read_at_;
  uint64_t size_;
  std::vector<ZipEntry> entries_;
};

}  // namespace rmr::capi
