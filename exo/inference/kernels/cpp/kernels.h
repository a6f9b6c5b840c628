// What the kernels of every instruction set offer, and the shapes of their arguments.
#pragma once

#include <cstdint>

namespace exo {

enum class Type : int { Float32, BFloat16, Float16 };

inline int size_of(Type type) {
  return type == Type::Float32 ? 4 : 2;
}

// How the elements of a quantised matrix are coded. Affine: w = scale * q + bias with q of `bits`
// unsigned bits. Fp4: w = scale * e2m1(code), no bias; held as twice the value with half the scale.
struct Format {
  int bits;     // 2, 3, 4, 5, 6 or 8
  int group;    // elements along K that share a scale: 16, 32, 64 or 128
  bool fp4;     // codes are e2m1 numbers
  Type scales;  // as what the scales and biases are held

  bool biased() const { return !fp4; }
  // Elements of one column that are coded together.
  int unit() const { return group < 32 ? group : 32; }
  // Bytes of one group of sixteen columns: the codes, then scales, then biases.
  int64_t code_bytes() const { return int64_t(group) * bits * 2; }
  int64_t group_bytes() const {
    return code_bytes() + 16 * size_of(scales) * (biased() ? 2 : 1);
  }
  // Bytes of sixteen columns.
  int64_t block_bytes(int64_t k) const { return k / group * group_bytes(); }
};

// A (rows, k) times the transpose of a packed (n, k) gives (rows, n).
struct Quantized {
  Format format;
  const uint8_t* packed;
  const void* x;
  void* out;
  Type type;  // of x and out
  int64_t rows, n, k;
  // Where rows of x and out are: row r of the product is row x_rows[r] of x and out_rows[r] of out;
  // null for r itself.
  const int32_t* x_rows = nullptr;
  const int32_t* out_rows = nullptr;
};

// Rows of a packed matrix of numbers for `k` elements: those of bfloat16 are paired, and filled up
// with 0 to whole tiles.
inline int64_t packed_rows(Type weights, int64_t k) {
  return weights == Type::BFloat16 ? (k + 31) / 32 * 32 : k;
}

// The same with a matrix of numbers, packed by sixty-four columns.
struct Dense {
  Type weights;
  const uint8_t* packed;
  const void* x;
  void* out;
  Type type;
  int64_t rows, n, k;
  const int32_t* x_rows = nullptr;
  const int32_t* out_rows = nullptr;
};

struct Norm {
  const void* x;
  const void* weight;  // or null
  void* out;
  Type type, weight_type;
  int64_t rows, size;
  float epsilon;
};

// silu(gate) * up
struct Gated {
  const void* gate;
  const void* up;
  void* out;
  Type type;
  int64_t size;
};

// x is (batch, heads, length, size), with the last axis contiguous; out is contiguous.
struct Rope {
  const void* x;
  void* out;
  Type type;
  int64_t batch, heads, length, size, dims;
  int64_t strides[3];  // of x, in elements
  bool traditional;
  float scale;
  const float* inverse;       // (dims / 2): angle per position of each pair
  const int32_t* offsets;     // (batch) or one
  int64_t offset_step;        // 1 or 0
};

enum class Mask : int { None, Causal, Bool, Additive };

// Queries (batch, heads, length, size) in float32, keys (batch, kv_heads, keys, size) and values
// (…, value_size) of type `held`, all with the last axis contiguous; out is (batch, heads, length,
// value_size) in float32, contiguous.
struct Attention {
  const float* q;
  const void *k, *v;
  Type held;
  float* out;
  const void* mask;
  const float* sinks;  // (heads) or null
  Mask kind;
  int64_t batch, heads, kv_heads, length, keys, size, value_size;
  int64_t q_strides[3], k_strides[3], v_strides[3];
  int64_t mask_strides[4];
  float scale;
};

// Each splits itself over the pool's threads.
struct Kernels {
  const char* name;
  void (*quantized)(const Quantized&);
  void (*dense)(const Dense&);
  void (*norm)(const Norm&);
  void (*gated)(const Gated&);
  void (*rope)(const Rope&);
  void (*attention)(const Attention&);
  uint64_t (*read_memory)(const void*, int64_t bytes);
  float (*multiply_in_registers)(int64_t count, bool integers);
};

// The best that this machine can execute, or the one called `name`; null if there is none.
const Kernels* find_kernels(const char* name);

}  // namespace exo
