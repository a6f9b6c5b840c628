// What the machine can do at most, to compare the kernels with.
#pragma once

#include "fetch.h"
#include "pool.h"
#include "simd.h"

namespace exo::EXO_ISA {

// Read memory once, all threads together; what they saw is returned so that it must be read.
inline uint64_t read_memory(const void* from, int64_t bytes) {
  constexpr int64_t part = 1 << 20;
  std::atomic<uint64_t> total{0};
  Pool::shared().run(bytes / part, 1, [&](int64_t begin, int64_t end) {
    Words sums[4] = {};
    const auto* at = static_cast<const uint8_t*>(from) + begin * part;
    for (int64_t i = 0; i < (end - begin) * part; i += 256) {
      fetch_ahead(at + i, 256);
#pragma GCC unroll 16
      for (int j = 0; j < 4 * kParts; ++j) sums[j % 4] ^= load<Words>(at + i + j * sizeof(Words));
    }
    const Words all = sums[0] ^ sums[1] ^ sums[2] ^ sums[3];
    total += all[0] + all[kRegister - 1];
  });
  return total;
}

// Multiply and add in registers, `count` vectors in all: products of float32 in sixteen lanes, or
// of int16 in thirty-two.
inline float multiply_in_registers(int64_t count, bool integers) {
  constexpr int kChains = 12;
  std::atomic<float> seen{0.0f};
  Pool::shared().run(64, 1, [&](int64_t begin, int64_t end) {
    Floats floats[kChains] = {};
    Ints sums[kChains] = {};
    Floats factor = Floats{} + 0.5f;
    Ints pairs = Ints{} + 3;
    // Not to be computed once and for all.
    asm volatile("" : "+m"(factor), "+m"(pairs));
    const Floats f = factor;
    const Ints p = pairs;
    for (int64_t i = 0; i < (end - begin) * count * kParts / 64 / kChains; ++i) {
      if (integers) {
#pragma GCC unroll 12
        for (int c = 0; c < kChains; ++c) sums[c] = dot2(sums[c], p, p);
      } else {
#pragma GCC unroll 12
        for (int c = 0; c < kChains; ++c) floats[c] = fma(f, f, floats[c]);
      }
    }
    float last = 0.0f;
    for (int c = 0; c < kChains; ++c) last += floats[c][0] + float(sums[c][0]);
    seen = last;
  });
  return seen;
}

}  // namespace exo::EXO_ISA
