// Products with matrices of float32, bfloat16 or float16, computed in float32.
//
// Sixty-four columns lie beside each other along K. Each element of the result is one chain of
// fused multiply-adds in the order of K, so a row gives the same bits whatever is beside it. (Of
// bfloat16, two steps along K lie beside each other, and some processors have tiles for them.)
#pragma once

#include "dense_tiles.h"
#include "fetch.h"
#include "rows.h"

namespace exo::EXO_ISA {

constexpr int kPanel = 64;
constexpr int kVectors = kPanel / kLanes;

// How a register of columns is read, for each of kSteps along K that lie together.
template <class W>
struct Columns {
  static constexpr int kSteps = 1;
  static EXO_INLINE Floats read(const typename W::Stored* from, int first, int) {
    return W::read_part(from + first);
  }
};

template <>
struct Columns<BFloat16> {
  static constexpr int kSteps = 2;
  static EXO_INLINE Floats read(const uint16_t* from, int first, int step) {
    const Words pairs = load<Words>(from + 2 * first);
    return (Floats)(step ? pairs & 0xffff0000 : pairs << 16);
  }
};

// Columns whose sums fit into the registers for so many rows, beside weights and activations.
constexpr int columns_at_once(int rows) {
#if defined(__AVX512F__)
  return kPanel;
#else
  return rows == 1 ? kPanel : rows <= 3 ? kPanel / 2 : kPanel / 4;
#endif
}

template <class W>
struct DenseKernels {
  using Weight = typename W::Stored;

  static EXO_INLINE void write(const Dense& d, int64_t row, int64_t panel, const f32x16* v) {
    const int64_t out = at(d.out_rows, row) * d.n + panel * kPanel;
    for (int i = 0; i < kVectors; ++i) {
      const int64_t left = std::min<int64_t>(kLanes, d.n - panel * kPanel - i * kLanes);
      if (left <= 0) return;
      char* to = static_cast<char*>(d.out) + (out + i * kLanes) * size_of(d.type);
      with_format(d.type, [&](auto format) {
        if (left == kLanes) decltype(format)::write(to, v[i]);
        else write_some<decltype(format)>(to, v[i], int(left));
      });
    }
  }

  // `width` more steps along K for kRows rows, `x_stride` floats apart.
  template <int kRows, class V, bool kFetch>
  static EXO_INLINE void steps(
      const typename V::Stored* weights, const float* x, int64_t x_stride, int64_t width,
      f32x16* totals) {
    constexpr int kColumns = columns_at_once(kRows);
    float* to = reinterpret_cast<float*>(totals);
    some_columns<kRows, V, kFetch>(weights, 0, x, x_stride, width, to);
    // What was read for the first columns lies in the nearest cache.
    for (int first = kColumns; first < kPanel; first += kColumns)
      some_columns<kRows, V, false>(weights, first, x, x_stride, width, to);
  }

  template <int kRows, class V, bool kFetch>
  static EXO_INLINE void some_columns(
      const typename V::Stored* weights, int first, const float* x, int64_t x_stride,
      int64_t width, float* totals) {
    constexpr int kSteps = Columns<V>::kSteps;
    constexpr int kCount = columns_at_once(kRows) / kRegister;
    Floats sums[kRows][kCount];
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 16
      for (int i = 0; i < kCount; ++i)
        sums[r][i] = load<Floats>(totals + r * kPanel + first + i * kRegister);
    for (int64_t k = 0; k < width; k += kSteps, weights += kPanel * kSteps) {
      if constexpr (kFetch) fetch_ahead(weights, kPanel * kSteps * sizeof(*weights));
#pragma GCC unroll 2
      for (int step = 0; step < kSteps; ++step) {
        Floats w[kCount];
#pragma GCC unroll 16
        for (int i = 0; i < kCount; ++i)
          w[i] = Columns<V>::read(weights, first + i * kRegister, step);
#pragma GCC unroll 6
        for (int r = 0; r < kRows; ++r) {
          const Floats one = Floats{} + x[r * x_stride + k + step];
#pragma GCC unroll 16
          for (int i = 0; i < kCount; ++i) sums[r][i] = fma(one, w[i], sums[r][i]);
        }
      }
    }
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 16
      for (int i = 0; i < kCount; ++i)
        store(totals + r * kPanel + first + i * kRegister, sums[r][i]);
  }

  static constexpr int kTile = 6;

  template <class V, bool kFetch, int kRows = kTile>
  static EXO_INLINE void some(
      int64_t rows, const typename V::Stored* weights, const float* x, int64_t width,
      f32x16* totals) {
    if (rows == kRows) {
      steps<kRows, V, kFetch>(weights, x, kChunk, width, totals);
    } else if constexpr (kRows > 1) {
      some<V, kFetch, kRows - 1>(rows, weights, x, width, totals);
    }
  }

  // `width` steps along K as float32.
  static EXO_INLINE void unpack(const Weight* from, int64_t width, float* to) {
    constexpr int kSteps = Columns<W>::kSteps;
    for (int64_t k = 0; k < width; k += kSteps, from += kPanel * kSteps) {
      fetch_ahead(from, kPanel * kSteps * sizeof(*from));
      for (int step = 0; step < kSteps; ++step, to += kPanel) {
        for (int i = 0; i < kPanel; i += kRegister) store(to + i, Columns<W>::read(from, i, step));
      }
    }
  }

  static void panels(const Dense& d, const float* x, int64_t begin, int64_t end) {
    f32x16* totals = scratch<f32x16, 4>(d.rows * kVectors);
    const bool unpacked = d.rows > kTile && sizeof(Weight) < sizeof(float);
    alignas(64) float plain[kChunk * kPanel];
    for (int64_t panel = begin; panel < end; ++panel) {
      std::fill(totals, totals + d.rows * kVectors, f32x16{});
      const Weight* weights = reinterpret_cast<const Weight*>(d.packed) +
          panel * packed_rows(d.weights, d.k) * kPanel;
      const float* chunk = x;
      for (int64_t k = 0; k < d.k; k += kChunk, chunk += d.rows * kChunk) {
        const int64_t width = std::min(kChunk, d.k - k);
        const Weight* from = weights + k * kPanel;
        if (unpacked) unpack(from, width, plain);
        for (int64_t r = 0; r < d.rows; r += kTile) {
          const int64_t rows = std::min<int64_t>(kTile, d.rows - r);
          const float* some_x = chunk + r * kChunk;
          f32x16* to = totals + r * kVectors;
          if (unpacked) some<Float32, false>(rows, plain, some_x, width, to);
          else if (r == 0) some<W, true>(rows, from, some_x, width, to);
          else some<W, false>(rows, from, some_x, width, to);
        }
      }
      for (int64_t r = 0; r < d.rows; ++r) write(d, r, panel, totals + r * kVectors);
    }
  }

  static void run(const Dense& d) {
#if defined(__AMX_BF16__)
    if constexpr (std::is_same_v<W, BFloat16>) return run_tiles(d);
#endif
    const int64_t chunks = (d.k + kChunk - 1) / kChunk;
    float* x = scratch<float, 5>(chunks * d.rows * kChunk);
    with_format(d.type, [&](auto format) {
      Pool::shared().run(d.rows, std::max<int64_t>(1, 16384 / d.k), [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) {
          unpack_row<decltype(format)>(
              row_of(d.x, d.type, at(d.x_rows, r), d.k), d.k, x + r * kChunk, d.rows * kChunk);
        }
      });
    });
    const int64_t grain = std::max<int64_t>(1, 32768 / (d.k * kVectors * d.rows));
    Pool::shared().run((d.n + kPanel - 1) / kPanel, grain, [&](int64_t begin, int64_t end) {
      panels(d, x, begin, end);
    });
  }

#if defined(__AMX_BF16__)
  static void run_tiles(const Dense& d) {
    const Parts x = split_parts(d);
    const int64_t panels = (d.n + kPanel - 1) / kPanel, at_once = d.rows <= kTileRows ? 1 : 4;
    const int64_t grain = std::max<int64_t>(at_once, 32768 / (d.k * kVectors * d.rows));
    Pool::shared().run(panels, grain, [&](int64_t begin, int64_t end) {
      panels_in_tiles(d, x, begin, end, at_once, [&](int64_t row, int64_t panel, const f32x16* v) {
        write(d, row, panel, v);
      });
    });
  }
#endif
};

// As many rows as are worth keeping ready: tiles need more of the caches for each.
#if defined(__AMX_BF16__)
constexpr int64_t kMostRows = 256;
#else
constexpr int64_t kMostRows = 510;
#endif

inline void run_dense(const Dense& all) {
  by_rows(all, kMostRows, [](const Dense& d) {
    with_format(d.weights, [&](auto format) { DenseKernels<decltype(format)>::run(d); });
  });
}

}  // namespace exo::EXO_ISA
