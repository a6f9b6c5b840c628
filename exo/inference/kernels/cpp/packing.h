// Brings matrices into the order that the kernels read them in.
#pragma once

#include <cstdint>

#include "kernels.h"

namespace exo {

// A quantised matrix (n, k) as MLX holds it: codes of `bits` bits, least significant first, rows
// padded to nothing; scales and, if affine, biases (n, k / group). Scales of fp4 are single bytes:
// powers of two (e8m0, groups of 32), or e4m3 (groups of 16).
struct Codes {
  const uint8_t* codes;
  const void* scales;
  const void* biases;
  int64_t n, k;
};

int64_t packed_bytes(const Format& format, int64_t n, int64_t k);
void pack(const Format& format, const Codes& from, uint8_t* to);

// A matrix (n, k) of numbers, by sixty-four columns along k; columns beyond n are 0.
int64_t packed_bytes(Type type, int64_t n, int64_t k);
void pack(Type type, const void* from, int64_t n, int64_t k, uint8_t* to);

// Row `row` of a packed matrix as float32.
void unpack_row(const Format& format, const uint8_t* packed, int64_t k, int64_t row, float* to);
void unpack_row(Type type, const uint8_t* packed, int64_t k, int64_t row, float* to);

}  // namespace exo
