// What a decoder layer does besides products: norms, gates and rotary positions.
#pragma once

#include <cmath>

#include "rows.h"

namespace exo::EXO_ISA {

// Elements that one core does in about the time that another one needs to wake.
constexpr int64_t kWorthSharing = 16384;

// Call `go(i, count)` for runs of at most sixteen elements.
template <class Go>
EXO_INLINE void by_lanes(int64_t size, Go&& go) {
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) go(i, kLanes);
  if (i < size) go(i, int(size - i));
}

template <class F>
EXO_INLINE f32x16 read(const void* from, int64_t i, int count) {
  const auto* p = static_cast<const typename F::Stored*>(from) + i;
  return count == kLanes ? F::read(p) : read_some<F>(p, count);
}

template <class F>
EXO_INLINE void write(void* to, int64_t i, int count, f32x16 v) {
  auto* p = static_cast<typename F::Stored*>(to) + i;
  if (count == kLanes) F::write(p, v);
  else write_some<F>(p, v, count);
}

// Root mean square of each row (Zhang and Sennrich, 2019).
template <class F, class W>
void norm_rows(const Norm& n, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    const char* x = row_of(n.x, n.type, r, n.size);
    char* out = const_cast<char*>(row_of(n.out, n.type, r, n.size));
    f32x16 squares{};
    by_lanes(n.size, [&](int64_t i, int count) {
      const f32x16 v = read<F>(x, i, count);
      squares = fma(v, v, squares);
    });
    const float factor = 1.0f / std::sqrt(sum(squares) / float(n.size) + n.epsilon);
    by_lanes(n.size, [&](int64_t i, int count) {
      f32x16 v = read<F>(x, i, count) * factor;
      if (n.weight) v *= read<W>(n.weight, i, count);
      write<F>(out, i, count, v);
    });
  }
}

inline void run_norm(const Norm& n) {
  const int64_t grain = std::max<int64_t>(1, kWorthSharing / std::max<int64_t>(1, n.size));
  with_format(n.type, [&](auto x) {
    with_format(n.weight_type, [&](auto w) {
      Pool::shared().run(n.rows, grain, [&](int64_t begin, int64_t end) {
        norm_rows<decltype(x), decltype(w)>(n, begin, end);
      });
    });
  });
}

inline void run_gated(const Gated& g) {
  const int64_t vectors = (g.size + kLanes - 1) / kLanes;
  with_format(g.type, [&](auto format) {
    using F = decltype(format);
    Pool::shared().run(vectors, kWorthSharing / kLanes / 4, [&](int64_t begin, int64_t end) {
      for (int64_t at = begin; at < end; ++at) {
        const int64_t i = at * kLanes;
        const int count = int(std::min<int64_t>(kLanes, g.size - i));
        const f32x16 x = read<F>(g.gate, i, count);
        const f32x16 silu = x / (1.0f + exponential(-x));
        write<F>(g.out, i, count, silu * read<F>(g.up, i, count));
      }
    });
  });
}

// Rotary positions (Su et al., 2021). Pairs are halves of the rotated part, or, traditional,
// neighbours.
template <class F>
void rope_positions(const Rope& r, int64_t begin, int64_t end) {
  using Stored = typename F::Stored;
  const int64_t half = r.dims / 2;
  float* cosines = scratch<float, 6>(2 * half);
  float* sines = cosines + half;
  for (int64_t item = begin; item < end; ++item) {
    const int64_t b = item / r.length, l = item % r.length;
    const float position = float(r.offsets[b * r.offset_step] + l) * r.scale;
    for (int64_t i = 0; i < half; ++i) {
      const float angle = position * r.inverse[i];
      cosines[i] = std::cos(angle);
      sines[i] = std::sin(angle);
    }
    for (int64_t h = 0; h < r.heads; ++h) {
      const auto* x = static_cast<const Stored*>(r.x) + b * r.strides[0] + h * r.strides[1] +
          l * r.strides[2];
      auto* out = static_cast<Stored*>(r.out) + ((b * r.heads + h) * r.length + l) * r.size;
      if (r.traditional) {
        by_lanes(r.dims, [&](int64_t i, int count) {
          float v[kLanes], turned[kLanes];
          store(v, read<F>(x, i, count));
          for (int j = 0; j < count; j += 2) {
            const float c = cosines[(i + j) / 2], s = sines[(i + j) / 2];
            turned[j] = v[j] * c - v[j + 1] * s;
            turned[j + 1] = v[j] * s + v[j + 1] * c;
          }
          write<F>(out, i, count, load<f32x16>(turned));
        });
      } else {
        by_lanes(half, [&](int64_t i, int count) {
          const f32x16 a = read<F>(x, i, count), z = read<F>(x, half + i, count);
          const f32x16 c = read<Float32>(cosines, i, count), s = read<Float32>(sines, i, count);
          write<F>(out, i, count, a * c - z * s);
          write<F>(out, half + i, count, a * s + z * c);
        });
      }
      std::memcpy(out + r.dims, x + r.dims, (r.size - r.dims) * sizeof(Stored));
    }
  }
}

inline void run_rope(const Rope& r) {
  const int64_t each = std::max<int64_t>(1, r.heads * r.size + 16 * r.dims);
  with_format(r.type, [&](auto format) {
    const int64_t grain = std::max<int64_t>(1, kWorthSharing / each);
    Pool::shared().run(r.batch * r.length, grain, [&](int64_t begin, int64_t end) {
      rope_positions<decltype(format)>(r, begin, end);
    });
  });
}

}  // namespace exo::EXO_ISA
