// What: several neighbouring elements read or written at once, in the widest words that their address permits.
// Layout: N elements of T, contiguous; 16-byte words at multiples of 16, and so on down to single elements.
// Source: own; a word must not be read beyond its elements, so a row that starts off a boundary is read in parts.
#pragma once

#include <cstring>

#include "../platform.h"

namespace rmr {

struct alignas(16) Word16 {
  uint32_t x, y, z, w;
} RMR_ALIAS;
struct alignas(8) Word8 {
  uint32_t x, y;
} RMR_ALIAS;
struct alignas(4) Word4 {
  uint32_t x;
} RMR_ALIAS;

template <class Word>
RMR_HD inline bool fits(const void* address) {
  return reinterpret_cast<uintptr_t>(address) % sizeof(Word) == 0;
}

template <class Word, class T, int N>
RMR_HD inline void load_words(const T* from, T (&to)[N]) {
  constexpr int kWords = static_cast<int>(sizeof(T)) * N / static_cast<int>(sizeof(Word));
  const Word* words = reinterpret_cast<const Word*>(from);
  for (int i = 0; i < kWords; ++i) {
    const Word word = words[i];
    memcpy(reinterpret_cast<char*>(to) + i * sizeof(Word), &word, sizeof(Word));
  }
}

template <class Word, class T, int N>
RMR_HD inline void store_words(const T (&from)[N], T* to) {
  constexpr int kWords = static_cast<int>(sizeof(T)) * N / static_cast<int>(sizeof(Word));
  Word* words = reinterpret_cast<Word*>(to);
  for (int i = 0; i < kWords; ++i) {
    Word word;
    memcpy(&word, reinterpret_cast<const char*>(from) + i * sizeof(Word), sizeof(Word));
    words[i] = word;
  }
}

template <class T, int N>
RMR_HD inline void load(const T* from, T (&to)[N]) {
  constexpr int kBytes = static_cast<int>(sizeof(T)) * N;
  if constexpr (kBytes % 16 == 0) {
    if (fits<Word16>(from)) return load_words<Word16>(from, to);
  }
  if constexpr (kBytes % 8 == 0) {
    if (fits<Word8>(from)) return load_words<Word8>(from, to);
  }
  if constexpr (kBytes % 4 == 0 && sizeof(T) < 4) {
    if (fits<Word4>(from)) return load_words<Word4>(from, to);
  }
  for (int i = 0; i < N; ++i) to[i] = from[i];
}

template <class T, int N>
RMR_HD inline void store(const T (&from)[N], T* to) {
  constexpr int kBytes = static_cast<int>(sizeof(T)) * N;
  if constexpr (kBytes % 16 == 0) {
    if (fits<Word16>(to)) return store_words<Word16>(from, to);
  }
  if constexpr (kBytes % 4 == 0 && kBytes < 16) {
    if (fits<Word4>(to)) return store_words<Word4>(from, to);
  }
  for (int i = 0; i < N; ++i) to[i] = from[i];
}

}  // namespace rmr
