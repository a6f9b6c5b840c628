// The codes of a quantised matrix, read from the planes of bits that they are packed in.
#pragma once

#include "simd.h"

namespace exo::EXO_ISA {

// e2m1 numbers, doubled.
alignas(16) constexpr int8_t kFp4[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

// The codes of a unit of kPairs pairs along K, by sixteen columns: planes of 8, 4, 2 or 1 bits.
template <int kBits, bool kTable, int kPairs>
struct Unit {
  static constexpr int64_t kBytes = int64_t(kPairs) * 2 * kBits * 2;
  static_assert((kBits != 3 && kBits != 5) || kPairs == 16);

  // Each of these reads a register of columns; `from` is where the first of them lies in a plane.
  template <int kWidth>
  static EXO_INLINE Words plane(const uint8_t* from, int pair) {
    constexpr int per_word = 16 / kWidth;
    constexpr uint32_t mask = ((1u << kWidth) - 1) * 0x10001u;
    const Words words = load<Words>(from + pair / per_word * 64);
    return (words >> (pair % per_word * kWidth)) & mask;
  }

  static EXO_INLINE Ints pair(const uint8_t* from, int pair) {
    constexpr int64_t vector = int64_t(kPairs) * 4;  // bytes of a plane of 1 bit
    if constexpr (kTable) return look_up(plane<4>(from, pair), kFp4);
    if constexpr (kBits == 3)
      return (Ints)(plane<2>(from, pair) | plane<1>(from + 2 * vector, pair) << 2);
    else if constexpr (kBits == 5)
      return (Ints)(plane<4>(from, pair) | plane<1>(from + 4 * vector, pair) << 4);
    else if constexpr (kBits == 6)
      return (Ints)(plane<4>(from, pair) | plane<2>(from + 4 * vector, pair) << 4);
    else
      return (Ints)plane<kBits>(from, pair);
  }

  // Whether bytes can be taken from a plane as they lie there, and how far apart the pairs of a
  // quad are (`bytes.h`).
  static constexpr bool kPlain = !kTable && (kBits == 2 || kBits == 4 || kBits == 8);
  static constexpr int kApart = kPlain ? 8 / kBits : 1;

  static EXO_INLINE Words quad(const uint8_t* from, int quad) {
    if constexpr (kPlain) {
      constexpr uint32_t mask = ((1u << kBits) - 1) * 0x01010101u;
      const Words words = load<Words>(from + quad / kApart * 64);
      return (words >> (quad % kApart * kBits)) & mask;
    } else {
      const Words even = (Words)pair(from, 2 * quad), odd = (Words)pair(from, 2 * quad + 1);
      return (even & 0x00ff00ff) | (odd & 0x00ff00ff) << 8;
    }
  }
};

}  // namespace exo::EXO_ISA
