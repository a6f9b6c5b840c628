// Sixteen lanes of float32 or int32, whatever the machine's registers hold.
//
// The compiler's vector extensions do what they can express; the rest is here, once for each
// instruction set. Every function gives the same bits on each of them.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define EXO_INLINE inline __attribute__((always_inline))

namespace exo::EXO_ISA {

constexpr int kLanes = 16;

using f32x16 = float __attribute__((vector_size(64)));
using i32x16 = int32_t __attribute__((vector_size(64)));
using u32x16 = uint32_t __attribute__((vector_size(64)));
using u16x16 = uint16_t __attribute__((vector_size(32)));
using int16x16 = int16_t __attribute__((vector_size(32)));

template <class V>
EXO_INLINE V load(const void* from) {
  V v;
  std::memcpy(&v, from, sizeof(V));
  return v;
}

template <class V>
EXO_INLINE void store(void* to, V v) {
  std::memcpy(to, &v, sizeof(V));
}

EXO_INLINE f32x16 splat(float x) {
  return f32x16{} + x;
}

// What one register holds. Compilers keep wider vectors in memory, so loops that are to be fast add
// up in these. Where a register holds all sixteen lanes, the types are the same.
#if defined(__AVX512F__)
constexpr int kRegister = 16;
#elif defined(__AVX2__)
constexpr int kRegister = 8;
#else
constexpr int kRegister = 4;
#endif
constexpr int kParts = kLanes / kRegister;
using Floats = float __attribute__((vector_size(kRegister * 4)));
using Ints = int32_t __attribute__((vector_size(kRegister * 4)));
using Words = uint32_t __attribute__((vector_size(kRegister * 4)));

// The register number i of sixteen lanes.
EXO_INLINE Floats part(f32x16 v, int i) {
  return load<Floats>(reinterpret_cast<const char*>(&v) + i * sizeof(Floats));
}

// Two neighbouring int16 in all lanes.
EXO_INLINE Ints splat_pair(const int16_t* from) {
  int32_t pair;
  std::memcpy(&pair, from, sizeof(pair));
  return Ints{} + pair;
}

// What the compiler's extensions cannot say, for each instruction set.
#if defined(__AVX512F__)

EXO_INLINE Floats fma(Floats a, Floats b, Floats c) {
  return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}

// acc + a.low * b.low + a.high * b.high, with a and b pairs of int16 in each lane.
EXO_INLINE Ints dot2(Ints acc, Ints a, Ints b) {
#if defined(__AVX512VNNI__)
  return (Ints)_mm512_dpwssd_epi32((__m512i)acc, (__m512i)a, (__m512i)b);
#else
  return acc + (Ints)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#endif
}

EXO_INLINE Floats read_halves(const void* from) {
  return (Floats)_mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(from)));
}

EXO_INLINE f32x16 half_to_float(u16x16 v) {
  return (f32x16)_mm512_cvtph_ps((__m256i)v);
}

EXO_INLINE u16x16 float_to_half(f32x16 v) {
  return (u16x16)_mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

// Words of 0..15 replaced by the entries of a table of sixteen int8.
EXO_INLINE Ints look_up(Words words, const int8_t* table) {
  const __m512i entries = _mm512_cvtepi8_epi16(
      _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table))));
  return (Ints)_mm512_permutexvar_epi16((__m512i)words, entries);
}

#elif defined(__AVX2__)

struct Halves {
  __m256i low, high;
};

template <class V>
EXO_INLINE Halves halves(V v) {
  return load<Halves>(&v);
}

template <class V>
EXO_INLINE V whole(Halves h) {
  return load<V>(&h);
}

EXO_INLINE Floats fma(Floats a, Floats b, Floats c) {
  return (Floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}

EXO_INLINE Ints dot2(Ints acc, Ints a, Ints b) {
  return acc + (Ints)_mm256_madd_epi16((__m256i)a, (__m256i)b);
}

EXO_INLINE Floats read_halves(const void* from) {
  return (Floats)_mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(from)));
}

EXO_INLINE f32x16 half_to_float(u16x16 v) {
  const __m256i w = (__m256i)v;
  return whole<f32x16>(
      {(__m256i)_mm256_cvtph_ps(_mm256_castsi256_si128(w)),
       (__m256i)_mm256_cvtph_ps(_mm256_extracti128_si256(w, 1))});
}

EXO_INLINE u16x16 float_to_half(f32x16 v) {
  constexpr int rounding = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  const Halves x = halves(v);
  return (u16x16)_mm256_set_m128i(
      _mm256_cvtps_ph((__m256)x.high, rounding), _mm256_cvtps_ph((__m256)x.low, rounding));
}

EXO_INLINE Ints look_up(Words words, const int8_t* table) {
  // Entry 0 is 0, so the empty high bytes of the words stay empty; then the sign is spread.
  const __m256i entries =
      _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)));
  const __m256i found = _mm256_shuffle_epi8(entries, (__m256i)words);
  return (Ints)_mm256_srai_epi16(_mm256_slli_epi16(found, 8), 8);
}

#elif defined(__aarch64__)

struct Quarters {
  int32x4_t at[4];
};

template <class V>
EXO_INLINE Quarters quarters(V v) {
  return load<Quarters>(&v);
}

template <class V>
EXO_INLINE V whole(const Quarters& q) {
  return load<V>(&q);
}

EXO_INLINE Floats fma(Floats a, Floats b, Floats c) {
  return (Floats)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}

EXO_INLINE Ints dot2(Ints acc, Ints a, Ints b) {
  const int16x8_t p = (int16x8_t)a, q = (int16x8_t)b;
  const int32x4_t low = vmull_s16(vget_low_s16(p), vget_low_s16(q));
  return acc + (Ints)vpaddq_s32(low, vmull_high_s16(p, q));
}

EXO_INLINE Floats read_halves(const void* from) {
  return (Floats)vcvt_f32_f16(load<float16x4_t>(from));
}

EXO_INLINE f32x16 half_to_float(u16x16 v) {
  struct {
    uint16x8_t at[2];
  } in = load<decltype(in)>(&v);
  Quarters out;
  for (int i = 0; i < 2; ++i) {
    const float16x8_t h = vreinterpretq_f16_u16(in.at[i]);
    out.at[2 * i] = vreinterpretq_s32_f32(vcvt_f32_f16(vget_low_f16(h)));
    out.at[2 * i + 1] = vreinterpretq_s32_f32(vcvt_high_f32_f16(h));
  }
  return whole<f32x16>(out);
}

EXO_INLINE u16x16 float_to_half(f32x16 v) {
  const Quarters x = quarters(v);
  struct {
    uint16x8_t at[2];
  } out;
  for (int i = 0; i < 2; ++i) {
    const float16x4_t low = vcvt_f16_f32(vreinterpretq_f32_s32(x.at[2 * i]));
    out.at[i] = vreinterpretq_u16_f16(
        vcvt_high_f16_f32(low, vreinterpretq_f32_s32(x.at[2 * i + 1])));
  }
  return load<u16x16>(&out);
}

EXO_INLINE Ints look_up(Words words, const int8_t* table) {
  const int8x16_t found = vqtbl1q_s8(vld1q_s8(table), (uint8x16_t)words);
  return (Ints)vshrq_n_s16(vshlq_n_s16((int16x8_t)found, 8), 8);
}

#else
#error "No vector instructions are known for this machine."
#endif

#if !defined(__AVX512F__)
struct Registers {
  Floats at[kParts];
};

EXO_INLINE f32x16 fma(f32x16 a, f32x16 b, f32x16 c) {
  const auto x = load<Registers>(&a), y = load<Registers>(&b);
  auto sums = load<Registers>(&c);
  for (int i = 0; i < kParts; ++i) sums.at[i] = fma(x.at[i], y.at[i], sums.at[i]);
  return load<f32x16>(&sums);
}
#endif

// Number formats in memory.

EXO_INLINE f32x16 bfloat_to_float(u16x16 v) {
  return (f32x16)(__builtin_convertvector(v, u32x16) << 16);
}

EXO_INLINE u16x16 float_to_bfloat(f32x16 v) {
  const u32x16 bits = (u32x16)v;
  const u32x16 rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const u32x16 nan = (bits >> 16) | 0x40;
  const u32x16 is_nan = (u32x16)((bits & 0x7fffffff) > 0x7f800000);
  return __builtin_convertvector((is_nan & nan) | (~is_nan & rounded), u16x16);
}

// Each reads sixteen numbers, or as many as a register holds.
struct Float32 {
  using Stored = float;
  static EXO_INLINE Floats read_part(const void* p) { return load<Floats>(p); }
  static EXO_INLINE f32x16 read(const void* p) { return load<f32x16>(p); }
  static EXO_INLINE void write(void* p, f32x16 v) { store(p, v); }
};

struct BFloat16 {
  using Stored = uint16_t;
  static EXO_INLINE Floats read_part(const void* p) {
    using Shorts = uint16_t __attribute__((vector_size(kRegister * 2)));
    return (Floats)(__builtin_convertvector(load<Shorts>(p), Words) << 16);
  }
  static EXO_INLINE f32x16 widen(u16x16 v) { return bfloat_to_float(v); }
  static EXO_INLINE f32x16 read(const void* p) { return widen(load<u16x16>(p)); }
  static EXO_INLINE void write(void* p, f32x16 v) { store(p, float_to_bfloat(v)); }
};

struct Float16 {
  using Stored = uint16_t;
  static EXO_INLINE Floats read_part(const void* p) { return read_halves(p); }
  static EXO_INLINE f32x16 widen(u16x16 v) { return half_to_float(v); }
  static EXO_INLINE f32x16 read(const void* p) { return widen(load<u16x16>(p)); }
  static EXO_INLINE void write(void* p, f32x16 v) { store(p, float_to_half(v)); }
};

// The first `count` of sixteen elements; the others read as 0.
template <class Format>
EXO_INLINE f32x16 read_some(const void* from, int count) {
  typename Format::Stored some[kLanes] = {};
  std::memcpy(some, from, count * sizeof(some[0]));
  return Format::read(some);
}

template <class Format>
EXO_INLINE void write_some(void* to, f32x16 v, int count) {
  typename Format::Stored some[kLanes];
  Format::write(some, v);
  std::memcpy(to, some, count * sizeof(some[0]));
}

// Arithmetic.

EXO_INLINE f32x16 select(i32x16 where, f32x16 yes, f32x16 no) {
  return (f32x16)((where & (i32x16)yes) | (~where & (i32x16)no));
}

EXO_INLINE f32x16 greater_of(f32x16 a, f32x16 b) {
  return select(a > b, a, b);
}

// Pairs of lanes are added in the same order everywhere: 8 apart, then 4, 2 and 1.
EXO_INLINE float sum(f32x16 v) {
  float a[kLanes];
  store(a, v);
  for (int step = 8; step; step /= 2) {
    for (int i = 0; i < step; ++i) a[i] += a[i + step];
  }
  return a[0];
}

EXO_INLINE float greatest(f32x16 v) {
  float a[kLanes];
  store(a, v);
  float best = a[0];
  for (int i = 1; i < kLanes; ++i) best = a[i] > best ? a[i] : best;
  return best;
}

// e to the power of v, to 2 units in the last place; infinite above 88.72; 0 below -87.3, where
// results would be subnormal. Cody and Waite's reduction and the polynomial of Cephes' expf.
EXO_INLINE Floats exponential(Floats v) {
  const auto all = [](float x) { return Floats{} + x; };
  const auto choose = [](Ints where, Floats yes, Floats no) {
    return (Floats)((where & (Ints)yes) | (~where & (Ints)no));
  };
  const Floats top = all(88.72f), bottom = all(-87.3f), magic = all(12582912.0f);
  const Floats x = choose(v > top, top, choose(v < bottom, bottom, v));
  const Floats n = fma(x, all(1.44269504088896341f), magic) - magic;
  Floats r = fma(n, all(-0.693359375f), x);
  r = fma(n, all(2.12194440e-4f), r);
  Floats p = all(1.9875691500e-4f);
  p = fma(p, r, all(1.3981999507e-3f));
  p = fma(p, r, all(8.3334519073e-3f));
  p = fma(p, r, all(4.1665795894e-2f));
  p = fma(p, r, all(1.6666665459e-1f));
  p = fma(p, r, all(5.0000001201e-1f));
  p = fma(p, r * r, r) + 1.0f;
  // In two steps: 2^128 is not a float.
  const Ints power = __builtin_convertvector(n, Ints), half = power >> 1;
  const Floats result = p * (Floats)((half + 127) << 23) * (Floats)((power - half + 127) << 23);
  // Comparisons with NaN are false, so that NaN comes through.
  const Floats ends = choose(v > top, all(__builtin_inff()), choose(v == v, result, v));
  return choose(v < bottom, all(0.0f), ends);
}

#if !defined(__AVX512F__)
EXO_INLINE f32x16 exponential(f32x16 v) {
  auto parts = load<Registers>(&v);
  for (int i = 0; i < kParts; ++i) parts.at[i] = exponential(parts.at[i]);
  return load<f32x16>(&parts);
}
#endif

}  // namespace exo::EXO_ISA
