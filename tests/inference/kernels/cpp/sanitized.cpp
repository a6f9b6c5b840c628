// Runs every kernel over ragged shapes in buffers of exactly their size, for the sanitizers to
// watch, and compares products with float64.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "kernels.h"
#include "packing.h"
#include "pool.h"

using namespace exo;

namespace {

std::mt19937 random_bits(1);

// On the heap, with nothing after it.
template <class T>
struct Exactly {
  std::unique_ptr<T[]> memory;
  int64_t size;

  explicit Exactly(int64_t n) : memory(new T[n]()), size(n) {}
  T* data() { return memory.get(); }
  T& operator[](int64_t i) { return memory[i]; }
};

Exactly<float> normal(int64_t n) {
  std::normal_distribution<float> draw;
  Exactly<float> out(n);
  for (int64_t i = 0; i < n; ++i) out[i] = draw(random_bits);
  return out;
}

Exactly<uint8_t> bytes(int64_t n) {
  Exactly<uint8_t> out(n);
  for (int64_t i = 0; i < n; ++i) out[i] = uint8_t(random_bits());
  return out;
}

void expect(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "wrong: %s\n", what);
  std::exit(1);
}

// Packed rows, unpacked again, times x.
template <class Unpack>
void compare(
    float* x, float* y, int64_t rows, int64_t n, int64_t k, Unpack unpack, const char* what) {
  std::vector<float> w(k);
  double off = 0, size = 0;
  for (int64_t c = 0; c < n; ++c) {
    unpack(c, w.data());
    for (int64_t r = 0; r < rows; ++r) {
      double sum = 0, scale = 0;
      for (int64_t i = 0; i < k; ++i) {
        sum += double(x[r * k + i]) * w[i];
        scale += std::pow(double(x[r * k + i]) * w[i], 2);
      }
      off += std::pow(sum - y[r * n + c], 2);
      size += scale;
    }
  }
  expect(std::sqrt(off) <= 1e-4 * std::sqrt(size) + 1e-6, what);
}

void quantized(const Kernels& kernels, Format f, int64_t rows, int64_t n, int64_t groups) {
  const int64_t k = groups * f.group, scale = f.fp4 ? 1 : size_of(f.scales);
  auto codes = bytes(n * k * f.bits / 8);
  Exactly<uint8_t> scales(n * groups * scale), biases(n * groups * scale);
  for (int64_t i = 0; i < n * groups; ++i) {
    const float values[] = {0.01f, -0.07f};
    for (int which = 0; which < 2; ++which) {
      uint32_t word;
      std::memcpy(&word, &values[which], 4);
      if (f.scales == Type::BFloat16) word >>= 16;
      if (f.scales == Type::Float16) word = which ? 0xac7b : 0x211f;
      auto& to = which ? biases : scales;
      if (f.fp4) to[i] = f.group == 32 ? 120 + i % 9 : uint8_t(0x20 + i % 40);
      else std::memcpy(to.data() + i * scale, &word, scale);
    }
  }
  Exactly<uint8_t> packed(packed_bytes(f, n, k));
  pack(f, {codes.data(), scales.data(), f.biased() ? biases.data() : nullptr, n, k}, packed.data());
  auto x = normal(rows * k);
  Exactly<float> y(rows * n);
  kernels.quantized({f, packed.data(), x.data(), y.data(), Type::Float32, rows, n, k});
  compare(
      x.data(), y.data(), rows, n, k,
      [&](int64_t row, float* to) { unpack_row(f, packed.data(), k, row, to); }, "a quantised product");
  // By index, the rows backwards.
  Exactly<int32_t> order(rows);
  for (int64_t r = 0; r < rows; ++r) order[r] = int32_t(rows - 1 - r);
  Exactly<float> again(rows * n);
  kernels.quantized({f, packed.data(), x.data(), again.data(), Type::Float32, rows, n, k,
                     order.data(), order.data()});
  expect(!std::memcmp(y.data(), again.data(), rows * n * 4), "rows in another order");
}

// So many random numbers of a type.
Exactly<uint8_t> normal_of(Type type, int64_t count) {
  auto numbers = normal(count);
  Exactly<uint8_t> held(count * size_of(type));
  for (int64_t i = 0; i < count; ++i) {
    uint32_t word;
    std::memcpy(&word, numbers.data() + i, 4);
    if (type == Type::BFloat16) word >>= 16;
    if (type == Type::Float16) word = 0x3000 + word % 0x800;
    std::memcpy(held.data() + i * size_of(type), &word, size_of(type));
  }
  return held;
}

void dense(const Kernels& kernels, Type type, int64_t rows, int64_t n, int64_t k) {
  auto held = normal_of(type, n * k);
  Exactly<uint8_t> packed(packed_bytes(type, n, k));
  pack(type, held.data(), n, k, packed.data());
  auto x = normal(rows * k);
  Exactly<float> y(rows * n);
  kernels.dense({type, packed.data(), x.data(), y.data(), Type::Float32, rows, n, k});
  compare(
      x.data(), y.data(), rows, n, k,
      [&](int64_t row, float* to) { unpack_row(type, packed.data(), k, row, to); }, "a product");
}

void elementwise(const Kernels& kernels, int64_t size) {
  for (Type type : {Type::Float32, Type::BFloat16, Type::Float16}) {
    const int64_t each = size_of(type), rows = 3;
    Exactly<uint8_t> x(rows * size * each), w(size * each), out(rows * size * each);
    kernels.norm({x.data(), w.data(), out.data(), type, type, rows, size, 1e-5f});
    kernels.norm({x.data(), nullptr, out.data(), type, type, rows, size, 1e-5f});
    kernels.gated({x.data(), x.data(), out.data(), type, rows * size});
    const int64_t dims = size / 4 * 2;
    Exactly<float> inverse(dims / 2);
    Exactly<int32_t> offsets(1);
    for (bool traditional : {false, true}) {
      kernels.rope({x.data(), out.data(), type, 1, 1, rows, size, dims,
                    {rows * size, rows * size, size}, traditional, 1.0f, inverse.data(),
                    offsets.data(), 0});
    }
  }
}

void attention(
    const Kernels& kernels, Type type, int64_t length, int64_t keys, int64_t heads,
    int64_t shared) {
  const int64_t size = 48, value_size = 80, all = heads * shared;
  auto q = normal(all * length * size), sinks = normal(all);
  auto k = normal_of(type, heads * keys * size), v = normal_of(type, heads * keys * value_size);
  Exactly<float> out(all * length * value_size), additive(length * keys);
  Exactly<uint8_t> mask(length * keys);
  for (int64_t i = 0; i < length * keys; ++i) mask[i] = random_bits() % 3 > 0;
  for (Mask kind : {Mask::None, Mask::Causal, Mask::Bool, Mask::Additive}) {
    const void* held = kind == Mask::Bool ? static_cast<void*>(mask.data())
        : kind == Mask::Additive          ? static_cast<void*>(additive.data())
                                          : nullptr;
    kernels.attention({q.data(), k.data(), v.data(), type, out.data(), held, sinks.data(), kind, 1,
                       all, heads, length, keys, size, value_size,
                       {all * length * size, length * size, size},
                       {heads * keys * size, keys * size, size},
                       {heads * keys * value_size, keys * value_size, value_size},
                       {0, 0, keys, 1}, 0.1f});
    for (int64_t i = 0; i < out.size; ++i) expect(std::isfinite(out[i]), "attention");
  }
}

void all_of(const Kernels& kernels) {
  std::printf("%s\n", kernels.name);
  for (int64_t rows : {1, 2, 3, 4, 5, 13, 30}) {
    for (int64_t n : {1, 16, 17, 40}) {
      for (int bits : {2, 3, 4, 5, 6, 8}) {
        const int group = 32 << rows % 3;
        const Type type = Type(n % 3);
        quantized(kernels, {bits, group, false, type}, rows, n, 1 + rows % 3);
      }
      quantized(kernels, {4, 32, true, Type::BFloat16}, rows, n, 2);
      quantized(kernels, {4, 16, true, Type::BFloat16}, rows, n, 3);
      for (Type type : {Type::Float32, Type::BFloat16, Type::Float16}) {
        dense(kernels, type, rows, n * 3, 1 + 37 * n);
      }
    }
    for (Type type : {Type::Float32, Type::BFloat16, Type::Float16}) {
      attention(kernels, type, rows, rows + 29, 2, 1 + rows % 4);
    }
  }
  for (int64_t size : {4, 16, 20, 100, 1000}) elementwise(kernels, size);
}

}  // namespace

int main() {
  bool any = false;
  for (int threads : {1, 3}) {
    Pool::shared().resize(threads);
    for (const char* name : {"avx512amx", "avx512vnni", "avx512", "avx2", "neon"}) {
      const Kernels* kernels = find_kernels(name);
      if (!kernels) continue;
      any = true;
      all_of(*kernels);
    }
  }
  expect(any, "no kernels for this processor");
}
