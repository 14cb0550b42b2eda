// What: IEEE binary16 as engines write it, read without hardware support and without denormal arithmetic.
// Layout: 1 sign, 5 exponent, 10 fraction bits.
// Source: own; rebias the exponent by 112, subnormals by subtracting 2^-14, infinities and NaN by rebiasing twice.
#pragma once

#include <cstdint>
#include <cstring>

#include "../platform.h"

namespace rmr {

struct Half {
  uint16_t bits;
};

RMR_HD inline float float_of_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

RMR_HD inline uint32_t bits_of_float(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

RMR_HD inline float to_float(float value) { return value; }

RMR_HD inline float to_float(Half half) {
  const uint32_t body = (half.bits & 0x7fffu) << 13;
  const uint32_t exponent = body & 0x0f800000u;
  const uint32_t subnormal = bits_of_float(float_of_bits(body + 0x38800000u) - float_of_bits(0x38800000u));
  const uint32_t finite = exponent == 0 ? subnormal : body + 0x38000000u;
  const uint32_t magnitude = exponent == 0x0f800000u ? body + 0x70000000u : finite;
  return float_of_bits(magnitude | (static_cast<uint32_t>(half.bits & 0x8000u) << 16));
}

}  // namespace rmr
