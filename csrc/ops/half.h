// What: IEEE binary16 as engines read and write it, without denormal arithmetic where there is no instruction for it.
// Layout: 1 sign, 5 exponent, 10 fraction bits; every NaN that is written is 0x7fff.
// Source: own; read: rebias the exponent by 112, subnormals by subtracting 2^-14, infinities and NaN by rebiasing
//         twice. Written: to nearest, ties to even; subnormals by adding 0.5, whose last bit is theirs.
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
#if RMR_HALF_INSTRUCTIONS
  return __half2float(__ushort_as_half(half.bits));
#else
  const uint32_t body = (half.bits & 0x7fffu) << 13;
  const uint32_t exponent = body & 0x0f800000u;
  const uint32_t subnormal = bits_of_float(float_of_bits(body + 0x38800000u) - float_of_bits(0x38800000u));
  const uint32_t finite = exponent == 0 ? subnormal : body + 0x38000000u;
  const uint32_t magnitude = exponent == 0x0f800000u ? body + 0x70000000u : finite;
  return float_of_bits(magnitude | (static_cast<uint32_t>(half.bits & 0x8000u) << 16));
#endif
}

RMR_HD inline uint16_t half_bits(float value) {
#if RMR_HALF_INSTRUCTIONS
  return __half_as_ushort(__float2half_rn(value));
#else
  const uint32_t bits = bits_of_float(value), magnitude = bits & 0x7fffffffu;
  const uint32_t normal = (magnitude - 0x38000000u + 0x0fffu + ((magnitude >> 13) & 1u)) >> 13;
  const uint32_t subnormal = bits_of_float(float_of_bits(magnitude) + 0.5f) - 0x3f000000u;
  const uint32_t finite = magnitude < 0x38800000u ? subnormal : normal;
  const uint32_t half = magnitude < 0x477ff000u ? finite : 0x7c00u;
  return static_cast<uint16_t>(magnitude > 0x7f800000u ? 0x7fffu : half | ((bits >> 16) & 0x8000u));
#endif
}

// The type of an engine's input from the float that was computed.
template <class O>
RMR_HD inline O from_float(float value);
template <>
RMR_HD inline float from_float<float>(float value) {
  return value;
}
template <>
RMR_HD inline Half from_float<Half>(float value) {
  return {half_bits(value)};
}

}  // namespace rmr
