// What: SHA-256 of bytes, in lower-case hexadecimal.
// Layout: -
// Twin: hashlib.sha256. Source: FIPS 180-4.
#pragma once

#include <cstdint>
#include <string>

namespace rmr::capi {

std::string sha256(const void* data, size_t size);
inline std::string sha256(const std::string& bytes) { return sha256(bytes.data(), bytes.size()); }

}  // namespace rmr::capi
