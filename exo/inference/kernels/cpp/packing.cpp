#include "packing.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "pool.h"

namespace exo {

namespace {

constexpr int64_t kBlock = 16, kPanel = 64;

int64_t blocks_of(int64_t n, int64_t size) {
  return (n + size - 1) / size;
}

uint32_t code_at(const uint8_t* row, int64_t index, int bits) {
  const int64_t bit = index * bits;
  uint32_t two = row[bit / 8];
  // A code may begin in one byte and end in the next; the last one ends with its row.
  if (bit % 8 + bits > 8) two |= uint32_t(row[bit / 8 + 1]) << 8;
  return two >> (bit % 8) & ((1u << bits) - 1);
}

// Write `code` of pair `pair` (and its first or second element) of column `lane`, into a plane
// `width` bits wide.
void set_code(uint8_t* plane, int width, int pair, int second, int lane, uint32_t code) {
  const int per_word = 16 / width;
  uint8_t* at = plane + pair / per_word * 64 + lane * 4 + second * 2;
  uint16_t word;
  std::memcpy(&word, at, sizeof(word));
  word |= uint16_t(code << (pair % per_word * width));
  std::memcpy(at, &word, sizeof(word));
}

void pack_unit(const Format& f, const uint8_t* row, int64_t first, int lane, uint8_t* to) {
  const int pairs = f.unit() / 2;
  for (int i = 0; i < f.unit(); ++i) {
    uint32_t code = code_at(row, first + i, f.bits);
    uint8_t* plane = to;
    for (int width : {8, 4, 2, 1}) {
      if (!(f.bits & width)) continue;
      set_code(plane, width, i / 2, i % 2, lane, code & ((1u << width) - 1));
      code >>= width;
      plane += pairs * 4 * width;
    }
  }
}

uint32_t code_of(const uint8_t* plane, int width, int pair, int second, int lane) {
  const int per_word = 16 / width;
  uint16_t word;
  std::memcpy(&word, plane + pair / per_word * 64 + lane * 4 + second * 2, sizeof(word));
  return word >> (pair % per_word * width) & ((1u << width) - 1);
}

uint16_t top_half(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return uint16_t(bits >> 16);
}

// A scale of fp4 as bfloat16, halved: codes stand for twice their values. Both are exact, but for
// 2^-127, whose half is not a normal number.
uint16_t fp4_scale(const Format& f, uint8_t scale) {
  if (f.group == 32) {
    if (scale == 0xff) return 0x7fc0;
    return top_half(std::ldexp(1.0f, int(scale) - 128));
  }
  const int exponent = scale >> 3 & 15, fraction = scale & 7;
  if (exponent == 15 && fraction == 7) return 0x7fc0;
  const float size = exponent ? std::ldexp(1.0f + fraction / 8.0f, exponent - 7)
                              : std::ldexp(fraction / 8.0f, -6);
  return top_half(scale & 0x80 ? -size / 2 : size / 2);
}

void pack_scales(const Format& f, const void* from, int64_t index, int lane, uint8_t* to) {
  const auto* bytes = static_cast<const uint8_t*>(from);
  if (f.fp4) {
    const uint16_t scale = fp4_scale(f, bytes[index]);
    std::memcpy(to + lane * 2, &scale, sizeof(scale));
    return;
  }
  const int size = size_of(f.scales);
  std::memcpy(to + lane * size, bytes + index * size, size);
}

}  // namespace

int64_t packed_bytes(const Format& format, int64_t n, int64_t k) {
  return blocks_of(n, kBlock) * format.block_bytes(k);
}

void pack(const Format& f, const Codes& from, uint8_t* to) {
  const int64_t groups = from.k / f.group, row_bytes = from.k * f.bits / 8;
  Pool::shared().run(blocks_of(from.n, kBlock), 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      uint8_t* out = to + block * f.block_bytes(from.k);
      std::memset(out, 0, f.block_bytes(from.k));
      const int lanes = int(std::min(kBlock, from.n - block * kBlock));
      for (int64_t g = 0; g < groups; ++g, out += f.group_bytes()) {
        for (int lane = 0; lane < lanes; ++lane) {
          const int64_t row = block * kBlock + lane;
          for (int64_t u = 0; u < f.group / f.unit(); ++u) {
            pack_unit(
                f, from.codes + row * row_bytes, g * f.group + u * f.unit(), lane,
                out + u * f.unit() * f.bits * 2);
          }
          uint8_t* scales = out + f.code_bytes();
          pack_scales(f, from.scales, row * groups + g, lane, scales);
          if (f.biased()) {
            pack_scales(
                f, from.biases, row * groups + g, lane, scales + kBlock * size_of(f.scales));
          }
        }
      }
    }
  });
}

int64_t packed_bytes(Type type, int64_t n, int64_t k) {
  return blocks_of(n, kPanel) * kPanel * packed_rows(type, k) * size_of(type);
}

namespace {

// Where element (column, i) of a panel is.
int64_t place_in_panel(Type type, int64_t column, int64_t i) {
  if (type == Type::BFloat16) return (i / 2 * kPanel + column) * 2 + i % 2;
  return i * kPanel + column;
}

template <class T>
void pack_numbers(Type type, const T* from, int64_t n, int64_t k, T* to) {
  const int64_t rows = packed_rows(type, k);
  Pool::shared().run(blocks_of(n, kPanel), 1, [&](int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end; ++panel) {
      T* out = to + panel * kPanel * rows;
      const int64_t columns = std::min(kPanel, n - panel * kPanel);
      if (columns < kPanel || rows > k) std::memset(out, 0, kPanel * rows * sizeof(T));
      // Some columns at a time, so that what is read and written stays near.
      for (int64_t first = 0; first < k; first += 16) {
        const int64_t last = std::min(k, first + 16);
        for (int64_t c = 0; c < columns; ++c) {
          const T* row = from + (panel * kPanel + c) * k;
          for (int64_t i = first; i < last; ++i) out[place_in_panel(type, c, i)] = row[i];
        }
      }
    }
  });
}

}  // namespace

void pack(Type type, const void* from, int64_t n, int64_t k, uint8_t* to) {
  if (type == Type::Float32) {
    pack_numbers(type, static_cast<const uint32_t*>(from), n, k, reinterpret_cast<uint32_t*>(to));
  } else {
    pack_numbers(type, static_cast<const uint16_t*>(from), n, k, reinterpret_cast<uint16_t*>(to));
  }
}

namespace {

float to_float(Type type, const uint8_t* from) {
  uint32_t bits = 0;
  std::memcpy(&bits, from, size_of(type));
  if (type == Type::BFloat16) bits <<= 16;
  if (type == Type::Float16) {
    const int exponent = bits >> 10 & 31;
    const float fraction = float(bits & 1023);
    const float size = exponent == 31 ? (fraction ? NAN : INFINITY)
        : exponent ? std::ldexp(1024.0f + fraction, exponent - 25)
                   : std::ldexp(fraction, -24);
    return bits & 0x8000 ? -size : size;
  }
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

}  // namespace

void unpack_row(const Format& f, const uint8_t* packed, int64_t k, int64_t row, float* to) {
  constexpr int8_t fp4[] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
  const int lane = int(row % kBlock), pairs = f.unit() / 2;
  const uint8_t* group = packed + row / kBlock * f.block_bytes(k);
  for (int64_t first = 0; first < k; first += f.group, group += f.group_bytes()) {
    const uint8_t* scales = group + f.code_bytes();
    const float scale = to_float(f.scales, scales + lane * size_of(f.scales));
    const float bias =
        f.biased() ? to_float(f.scales, scales + (kBlock + lane) * size_of(f.scales)) : 0.0f;
    for (int i = 0; i < f.group; ++i) {
      const uint8_t* plane = group + int64_t(i / f.unit()) * f.unit() * f.bits * 2;
      uint32_t code = 0;
      int shift = 0;
      for (int width : {8, 4, 2, 1}) {
        if (!(f.bits & width)) continue;
        code |= code_of(plane, width, i % f.unit() / 2, i % 2, lane) << shift;
        shift += width;
        plane += pairs * 4 * width;
      }
      to[first + i] = f.fp4 ? scale * fp4[code] : std::fma(scale, float(code), bias);
    }
  }
}

void unpack_row(Type type, const uint8_t* packed, int64_t k, int64_t row, float* to) {
  const int64_t size = size_of(type);
  const uint8_t* panel = packed + row / kPanel * kPanel * packed_rows(type, k) * size;
  for (int64_t i = 0; i < k; ++i) {
    to[i] = to_float(type, panel + place_in_panel(type, row % kPanel, i) * size);
  }
}

}  // namespace exo
