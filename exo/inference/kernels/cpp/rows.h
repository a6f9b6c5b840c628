// Rows of activations made ready for the matrix kernels.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels.h"
#include "pool.h"
#include "simd.h"

namespace exo::EXO_ISA {

// A buffer that each thread keeps for its next call.
template <class T, int kUse>
T* scratch(int64_t count) {
  static thread_local std::vector<f32x16> memory;
  const size_t needed = (count * sizeof(T) + sizeof(f32x16) - 1) / sizeof(f32x16);
  if (memory.size() < needed) memory.resize(needed);
  return reinterpret_cast<T*>(memory.data());
}

template <class Do>
EXO_INLINE void with_format(Type type, Do&& go) {
  switch (type) {
    case Type::Float32:
      return go(Float32{});
    case Type::BFloat16:
      return go(BFloat16{});
    case Type::Float16:
      return go(Float16{});
  }
}

EXO_INLINE const char* row_of(const void* x, Type type, int64_t row, int64_t size) {
  return static_cast<const char*>(x) + row * size * size_of(type);
}

EXO_INLINE int64_t at(const int32_t* rows, int64_t row) {
  return rows ? rows[row] : row;
}

// Compute a product by at most `most` rows at once, as many as are worth keeping ready.
template <class Product, class Go>
void by_rows(const Product& all, int64_t most, Go&& go) {
  for (int64_t first = 0; first < all.rows; first += most) {
    Product some = all;
    some.rows = std::min(most, all.rows - first);
    if (some.x_rows) some.x_rows += first;
    else some.x = row_of(all.x, all.type, first, all.k);
    if (some.out_rows) some.out_rows += first;
    else some.out = const_cast<char*>(row_of(all.out, all.type, first, all.n));
    go(some);
  }
}

// As float32, by blocks of kChunk columns: element (r, c) is at [c / kChunk][r][c % kChunk]. After
// the last of an odd number of columns comes a 0.
constexpr int64_t kChunk = 128;

template <class F>
void unpack_row(const char* from, int64_t k, float* to, int64_t chunk_stride) {
  for (int64_t c = 0; c < k; c += kChunk, to += chunk_stride) {
    const int64_t width = std::min(kChunk, k - c);
    const auto* x = reinterpret_cast<const typename F::Stored*>(from) + c;
    int64_t i = 0;
    for (; i + kLanes <= width; i += kLanes) store(to + i, F::read(x + i));
    if (i < width) write_some<Float32>(to + i, read_some<F>(x + i, width - i), width - i);
    if (width % 2) to[width] = 0.0f;
  }
}

// Rows as 16-bit integers with one scale for each group of columns, so that products with the
// integer codes of a quantised matrix are exact: only the rounding to 16 bits, 2^-16 of a group's
// greatest element, and the float32 sum over groups are not. (Up to 32639: two signed bytes.) Element (r, c) is at
// [c / group][r][c % group]; scale and sum of a group at [c / group][r].
struct Integers {
  int16_t* values;
  float* scales;
  float* sums;
  int64_t rows, group;

  const int16_t* values_of(int64_t g, int64_t r) const { return values + (g * rows + r) * group; }
  const float* scales_of(int64_t g, int64_t r) const { return scales + g * rows + r; }
  const float* sums_of(int64_t g, int64_t r) const { return sums + g * rows + r; }
};

// The float32 sum of a product after one more group, of which `products` are the integers' sums.
EXO_INLINE Floats add_group(
    Floats total, Ints products, Floats scales, Floats biases, float x_scale, float x_sum) {
  total = fma(__builtin_convertvector(products, Floats) * x_scale, scales, total);
  return fma(biases, Floats{} + x_sum, total);
}

constexpr float kMostRounded = 32639.0f;

template <class F>
void round_group(const typename F::Stored* x, const Integers& to, int64_t g, int64_t r) {
  const int64_t at = g * to.rows + r;
  int16_t* values = to.values + at * to.group;
  i32x16 top{};
  for (int64_t i = 0; i < to.group; i += kLanes) {
    const i32x16 size = (i32x16)F::read(x + i) & 0x7fffffff;
    const i32x16 larger = top > size;
    top = (larger & top) | (~larger & size);
  }
  int32_t most = 0;
  for (int i = 0; i < kLanes; ++i) most = std::max<int32_t>(most, top[i]);
  float greatest;
  std::memcpy(&greatest, &most, sizeof(greatest));
  // Not a number, or infinite: so is everything that is computed from it. Below the second limit
  // the reciprocal would not be finite.
  const bool finite = most < 0x7f800000, tiny = greatest < 1e-33f;
  const float up = finite && !tiny ? kMostRounded / greatest : 0.0f;
  i32x16 sum{};
  for (int64_t i = 0; i < to.group; i += kLanes) {
    const f32x16 magic = splat(12582912.0f);
    const i32x16 rounded = (i32x16)(fma(F::read(x + i), splat(up), magic)) - (i32x16)magic;
    sum += rounded;
    store(values + i, __builtin_convertvector(finite ? rounded : i32x16{}, int16x16));
  }
  int32_t total = 0;
  for (int i = 0; i < kLanes; ++i) total += sum[i];
  const float nan = std::numeric_limits<float>::quiet_NaN();
  to.scales[at] = finite ? (tiny ? 0.0f : greatest / kMostRounded) : nan;
  to.sums[at] = finite ? float(total) * to.scales[at] : nan;
}

inline Integers round_rows(
    const void* x, Type type, const int32_t* x_rows, int64_t rows, int64_t k, int64_t group) {
  const int64_t groups = k / group;
  const Integers to{
      scratch<int16_t, 0>(rows * k), scratch<float, 1>(rows * groups),
      scratch<float, 2>(rows * groups), rows, group};
  with_format(type, [&](auto format) {
    using F = decltype(format);
    // Waking another thread takes longer than some ten thousand elements.
    Pool::shared().run(rows, std::max<int64_t>(1, 16384 / k), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const char* row = row_of(x, type, at(x_rows, r), k);
        const auto* from = reinterpret_cast<const typename F::Stored*>(row);
        for (int64_t g = 0; g < groups; ++g) round_group<F>(from + g * group, to, g, r);
      }
    });
  });
  return to;
}

}  // namespace exo::EXO_ISA
