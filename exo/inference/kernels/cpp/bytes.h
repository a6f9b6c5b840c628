// Activations of 16 bits as two signed bytes, for products that take bytes four at a time.
//
// v = 256 * high + low: the sums of a group with both, put together, are those of `dot2`, to the
// last bit.
#pragma once

#include "rows.h"

#if defined(__AVX512VNNI__)

namespace exo::EXO_ISA {

// The bytes of Integers: group g of row r begins in both at [g][r][0], in quads. Quad q has four
// elements: the pair p and the pair `apart` further on, the first element of each, then the second
// of each; p leaves out the pairs that are second ones. There may be more rows than Integers has, to
// fill whole tiles; what is in those is of no importance.
struct Bytes {
  int8_t *high, *low;
  int64_t rows, group;

  int64_t at(int64_t g, int64_t r) const { return (g * rows + r) * group; }
};

inline Bytes split_bytes(const Integers& x, int64_t groups, int64_t rows, int apart) {
  const int64_t size = groups * rows * x.group;
  const Bytes to{scratch<int8_t, 6>(size), scratch<int8_t, 7>(size), rows, x.group};
  alignas(16) uint8_t places[16];
  for (int i = 0; i < 16; ++i) {
    const int quad = i / 4, pair = quad / apart * 2 * apart + quad % apart;
    places[i] = uint8_t(2 * (pair + i % 2 * apart) + i % 4 / 2);
  }
  const __m128i order = load<__m128i>(places);
  const int64_t grain = std::max<int64_t>(1, 65536 / (x.rows * x.group));
  Pool::shared().run(groups, grain, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) {
      const int16_t* from = x.values_of(g, 0);
      for (int64_t i = 0, first = to.at(g, 0); i < x.rows * x.group; i += 16) {
        const __m256i words = load<__m256i>(from + i);
        const __m256i above = _mm256_srai_epi16(_mm256_add_epi16(words, _mm256_set1_epi16(128)), 8);
        const __m128i low = _mm256_cvtepi16_epi8(words), high = _mm256_cvtepi16_epi8(above);
        store(to.low + first + i, _mm_shuffle_epi8(low, order));
        store(to.high + first + i, _mm_shuffle_epi8(high, order));
      }
    }
  });
  return to;
}

// acc + the four products of unsigned codes and signed bytes, the same four for all lanes.
EXO_INLINE i32x16 dot4(i32x16 acc, u32x16 codes, const int8_t* bytes) {
  int32_t quad;
  std::memcpy(&quad, bytes, sizeof(quad));
  return (i32x16)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)codes, _mm512_set1_epi32(quad));
}

}  // namespace exo::EXO_ISA

#endif
