// Columns of a matrix whose rows lie in memory.
#pragma once

#include "simd.h"

namespace exo::EXO_ISA {

// One step of the transposition: blocks of kStep by kStep beside the diagonal change places.
template <int kStep>
EXO_INLINE void swap_blocks(Floats* v) {
  Ints first{}, second{};
#pragma GCC unroll 16
  for (int lane = 0; lane < kRegister; ++lane) {
    first[lane] = lane & kStep ? kRegister + lane - kStep : lane;
    second[lane] = lane & kStep ? kRegister + lane : lane + kStep;
  }
#pragma GCC unroll 16
  for (int i = 0; i < kRegister; ++i) {
    if (i & kStep) continue;
    const Floats a = v[i], b = v[i + kStep];
    v[i] = __builtin_shuffle(a, b, first);
    v[i + kStep] = __builtin_shuffle(a, b, second);
  }
}

// As many registers as each has lanes become the columns of what they were the rows of.
EXO_INLINE void transpose(Floats* v) {
  if constexpr (kRegister > 8) swap_blocks<8>(v);
  if constexpr (kRegister > 4) swap_blocks<4>(v);
  swap_blocks<2>(v);
  swap_blocks<1>(v);
}

#if defined(__AVX512F__)
// The columns of sixteen rows of words, four for each of kQuarters; rows are `stride` bytes apart.
// Quarters of rows four apart are put beside each other as they are loaded; what is left is to
// transpose four by four.
template <int kQuarters>
EXO_INLINE void load_words(const void* rows, int64_t stride, f32x16* columns) {
#pragma GCC unroll 4
  for (int quarter = 0; quarter < kQuarters; ++quarter) {
    __m512 v[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const auto row = [&](int further) {
        const char* at = static_cast<const char*>(rows) + (i + further) * stride;
        return _mm_loadu_ps(reinterpret_cast<const float*>(at) + 4 * quarter);
      };
      v[i] = _mm512_broadcast_f32x4(row(0));
      v[i] = _mm512_mask_broadcast_f32x4(v[i], 0x00f0, row(4));
      v[i] = _mm512_mask_broadcast_f32x4(v[i], 0x0f00, row(8));
      v[i] = _mm512_mask_broadcast_f32x4(v[i], 0xf000, row(12));
    }
    const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(v[0], v[1]));
    const __m512d b = _mm512_castps_pd(_mm512_unpacklo_ps(v[2], v[3]));
    const __m512d c = _mm512_castps_pd(_mm512_unpackhi_ps(v[0], v[1]));
    const __m512d d = _mm512_castps_pd(_mm512_unpackhi_ps(v[2], v[3]));
    f32x16* to = columns + 4 * quarter;
    to[0] = (f32x16)_mm512_unpacklo_pd(a, b);
    to[1] = (f32x16)_mm512_unpackhi_pd(a, b);
    to[2] = (f32x16)_mm512_unpacklo_pd(c, d);
    to[3] = (f32x16)_mm512_unpackhi_pd(c, d);
  }
}
#endif

// Sixteen columns of `count` rows that are `stride` elements apart, as float32; what other rows
// would hold is 0.
template <class F>
EXO_INLINE void load_columns(
    const typename F::Stored* rows, int64_t stride, int count, f32x16* columns) {
#if defined(__AVX512F__)
  if (count == kLanes) {
    if constexpr (sizeof(*rows) == sizeof(float)) {
      load_words<4>(rows, stride * sizeof(*rows), columns);
    } else {
      f32x16 pairs[kLanes / 2];  // of neighbouring columns
      load_words<2>(rows, stride * sizeof(*rows), pairs);
#pragma GCC unroll 8
      for (int i = 0; i < kLanes / 2; ++i) {
        const u32x16 pair = (u32x16)pairs[i];
        columns[2 * i] = F::widen(__builtin_convertvector(pair, u16x16));
        columns[2 * i + 1] = F::widen(__builtin_convertvector(pair >> 16, u16x16));
      }
    }
    return;
  }
#endif
  float* to = reinterpret_cast<float*>(columns);
  for (int row = 0; row < kLanes; row += kRegister) {
    for (int column = 0; column < kLanes; column += kRegister) {
      Floats v[kRegister];
#pragma GCC unroll 16
      for (int i = 0; i < kRegister; ++i) {
        v[i] = row + i < count ? F::read_part(rows + (row + i) * stride + column) : Floats{};
      }
      transpose(v);
#pragma GCC unroll 16
      for (int i = 0; i < kRegister; ++i) store(to + (column + i) * kLanes + row, v[i]);
    }
  }
}

}  // namespace exo::EXO_ISA
