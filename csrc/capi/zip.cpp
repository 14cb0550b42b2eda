// What: the directory and the entries of zip.h.
// Layout: little-endian fields at the offsets of the standard.
// Source: as in zip.h; inflating is zlib's.
#include "zip.h"

#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <limits>

namespace rmr::capi {
namespace {

constexpr uint64_t kEndSize = 22, kMostComment = 65535, kLocalSize = 30, kCentralSize = 46;
constexpr uint64_t kMostBytes = uint64_t{1} << 31;  // of an entry: protobuf, and with it ONNX, ends there

uint64_t field(const std::string& bytes, size_t offset, size_t length) {
  uint64_t value = 0;
  for (size_t i = length; i-- > 0;) value = value << 8 | static_cast<uint8_t>(bytes[offset + i]);
  return value;
}

std::string inflated(const std::string& packed, uint64_t size) {
  if (packed.size() > std::numeric_limits<uInt>::max()) throw ZipError("it is too large");
  std::string out(size, '\0');
  z_stream stream{};
  if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) throw std::bad_alloc();
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
  stream.avail_in = static_cast<uInt>(packed.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  const int status = inflate(&stream, Z_FINISH);
  const bool whole = status == Z_STREAM_END && stream.total_out == out.size();
  inflateEnd(&stream);
  if (!whole) throw ZipError("its data are damaged");
  return out;
}

uint32_t crc_of(const std::string& bytes) {
  return static_cast<uint32_t>(crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

}  // namespace

Zip::Zip(ReadAt read_at, uint64_t size) : read_at_(std::move(read_at)), size_(size) { read_directory(); }

Zip Zip::of_bytes(const std::string& bytes) {
  const auto read_at = [&bytes](uint64_t offset, void* into, size_t size) {
    std::memcpy(into, bytes.data() + offset, size);
  };
  return {read_at, bytes.size()};
}

const ZipEntry* Zip::find(const std::string& name) const {
  const auto named = [&](const ZipEntry& entry) { return entry.name == name; };
  const auto found = std::find_if(entries_.begin(), entries_.end(), named);
  return found == entries_.end() ? nullptr : &*found;
}

std::string Zip::read(const ZipEntry& entry) const {
  if (entry.method != 0 && entry.method != 8) throw ZipError("it is neither stored nor deflated");
  if (entry.size > kMostBytes) throw ZipError("it is too large");
  const std::string header = piece(entry.offset, kLocalSize);
  if (field(header, 0, 4) != 0x04034b50) throw ZipError("its header is damaged");
  const uint64_t begin = entry.offset + kLocalSize + field(header, 26, 2) + field(header, 28, 2);
  std::string bytes = piece(begin, entry.packed_size);
  if (entry.method == 8) bytes = inflated(bytes, entry.size);
  if (bytes.size() != entry.size || crc_of(bytes) != entry.crc) throw ZipError("its checksum is wrong");
  return bytes;
}

std::string Zip::piece(uint64_t offset, uint64_t size) const {
  if (size > size_ || offset > size_ - size) throw ZipError("it is cut short");
  std::string bytes(size, '\0');
  if (size > 0) read_at_(offset, bytes.data(), bytes.size());
  return bytes;
}

void Zip::read_directory() {
  const uint64_t reach = std::min(size_, kEndSize + kMostComment);
  const std::string tail = piece(size_ - reach, reach);
  const size_t end = tail.size() < kEndSize ? std::string::npos : tail.rfind("PK\5\6", tail.size() - kEndSize);
  if (end == std::string::npos) throw ZipError("it is not a zip file");
  const uint64_t count = field(tail, end + 10, 2), length = field(tail, end + 12, 4), start = field(tail, end + 16, 4);
  if (count == 0xffff || start == 0xffffffff) throw ZipError("it is a zip64 archive, which is not read");

  const std::string directory = piece(start, length);
  size_t at = 0;
  for (uint64_t i = 0; i < count; ++i) {
    if (at + kCentralSize > directory.size() || field(directory, at, 4) != 0x02014b50) {
      throw ZipError("its directory is damaged");
    }
    const size_t name = field(directory, at + 28, 2), extra = field(directory, at + 30, 2);
    const size_t next = at + kCentralSize + name + extra + field(directory, at + 32, 2);
    if (next > directory.size()) throw ZipError("its directory is damaged");
    const bool encrypted = (field(directory, at + 8, 2) & 1) != 0;
    entries_.push_back({directory.substr(at + kCentralSize, name),
                        encrypted ? uint16_t{0xffff} : static_cast<uint16_t>(field(directory, at + 10, 2)),
                        static_cast<uint32_t>(field(directory, at + 16, 4)), field(directory, at + 20, 4),
                        field(directory, at + 24, 4), field(directory, at + 42, 4)});
    at = next;
  }
}

}  // namespace rmr::capi
