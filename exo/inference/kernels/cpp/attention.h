// Attention over a key-value cache, computed in float32 whatever the cache holds.
//
// A query's result depends on its own keys alone, from the first to the last that its mask lets
// through: scores are chains along the head's size, one lane a key; the sum of the exponentials
// begins at the first key; values are added in the order of the keys. So padding, chunking of a
// prompt and other rows of a batch do not change a bit.
#pragma once

#include <limits>

#include "fetch.h"
#include "rows.h"
#include "transpose.h"

namespace exo::EXO_ISA {

constexpr float kNegative = -std::numeric_limits<float>::infinity();
// Rows (a query of one head each) that share keys and values are computed together.
constexpr int64_t kRowsAtOnce = 32;

// Sums of sixteen lanes that the registers hold beside what is added to them.
#if defined(__AVX512F__)
constexpr int kMostSums = 16;
#else
constexpr int kMostSums = 4;
#endif

struct AttentionRow {
  const float* query;
  float* out;
  const char* mask;  // of this row, or null
  int64_t first, end;  // the keys that it sees
  float* scores;  // by key
  float sink;
};

// F is the format of keys and values.
template <class F>
struct AttentionTile {
  using Stored = typename F::Stored;

  const Attention& a;
  const Stored *keys, *values;
  AttentionRow rows[kRowsAtOnce];
  int64_t count;
  int64_t first, end;  // the keys that any row sees

  // Scores of sixteen keys, of which `width` exist, for kRows rows.
  template <int kRows>
  EXO_INLINE void scores(int64_t row, const f32x16* columns, int64_t key, int width) {
    Floats sums[kRows][kParts] = {};
    for (int64_t d = 0; d < a.size; ++d) {
      Floats keys[kParts];
#pragma GCC unroll 4
      for (int i = 0; i < kParts; ++i) keys[i] = part(columns[d], i);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const Floats query = Floats{} + rows[row + r].query[d];
#pragma GCC unroll 4
        for (int i = 0; i < kParts; ++i) sums[r][i] = fma(keys[i], query, sums[r][i]);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      float* to = rows[row + r].scores + key;
      const f32x16 v = load<f32x16>(sums[r]) * a.scale;
      if (width == kLanes) store(to, v);
      else write_some<Float32>(to, v, width);
    }
  }

  void all_scores(f32x16* columns) {
    for (int64_t key = first; key < end; key += kLanes) {
      const int width = int(std::min<int64_t>(kLanes, end - key));
      for (int row = 0; row < width; ++row) {
        fetch_ahead(keys + (key + row) * a.k_strides[2], a.size * sizeof(Stored));
      }
      for (int64_t d = 0; d < a.size; d += kLanes) {
        load_columns<F>(keys + key * a.k_strides[2] + d, a.k_strides[2], width, columns + d);
      }
      int64_t row = 0;
      if constexpr (kMostSums >= 8) {
        for (; row + 8 <= count; row += 8) scores<8>(row, columns, key, width);
      }
      for (; row + 4 <= count; row += 4) scores<4>(row, columns, key, width);
      for (; row + 2 <= count; row += 2) scores<2>(row, columns, key, width);
      for (; row < count; ++row) scores<1>(row, columns, key, width);
    }
  }

  EXO_INLINE void mask_scores(const AttentionRow& row) {
    const int64_t step = a.mask_strides[3];
    if (a.kind == Mask::Bool) {
      const auto* mask = reinterpret_cast<const bool*>(row.mask);
      for (int64_t j = row.first; j < row.end; ++j) {
        if (!mask[j * step]) row.scores[j] = kNegative;
      }
    } else if (a.kind == Mask::Additive) {
      const auto* mask = reinterpret_cast<const float*>(row.mask);
      for (int64_t j = row.first; j < row.end; ++j) row.scores[j] += mask[j * step];
    }
  }

  // Scores become weights, of which those of all keys of the tile can be used.
  void soften(const AttentionRow& row) {
    if (row.mask) mask_scores(row);
    float* s = row.scores;
    for (int64_t j = first; j < row.first; ++j) s[j] = 0.0f;
    for (int64_t j = row.end; j < end; ++j) s[j] = 0.0f;
    f32x16 top = splat(kNegative);
    int64_t j = row.first;
    for (; j + kLanes <= row.end; j += kLanes) top = greater_of(load<f32x16>(s + j), top);
    float most = std::max(greatest(top), row.sink);
    for (; j < row.end; ++j) most = std::max(most, s[j]);
    if (most == kNegative) most = 0.0f;  // nothing is seen: all weights are 0
    f32x16 sums{};
    for (j = row.first; j < row.end; j += kLanes) {
      const int width = int(std::min<int64_t>(kLanes, row.end - j));
      const f32x16 in = width == kLanes ? load<f32x16>(s + j) : read_some<Float32>(s + j, width);
      const f32x16 e = exponential(in - most);
      if (width == kLanes) {
        store(s + j, e);
        sums += e;
      } else {
        write_some<Float32>(s + j, e, width);
        sums += read_some<Float32>(s + j, width);
      }
    }
    float total = sum(sums);
    if (row.sink != kNegative) total += exponential(splat(row.sink - most))[0];
    if (total == 0.0f) return;
    const float factor = 1.0f / total;
    for (j = row.first; j < row.end; ++j) s[j] *= factor;
  }

  template <int kRows, int kVectors>
  EXO_INLINE void outputs(int64_t row, int64_t d) {
    constexpr int kCount = kVectors * kParts;
    Floats sums[kRows][kCount] = {};
    for (int64_t j = first; j < end; ++j) {
      const Stored* value = values + j * a.v_strides[2] + d;
      fetch_ahead(value, kVectors * kLanes * sizeof(Stored));
      Floats weights[kRows];
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) weights[r] = Floats{} + rows[row + r].scores[j];
#pragma GCC unroll 16
      for (int i = 0; i < kCount; ++i) {
        const Floats v = F::read_part(value + i * kRegister);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) sums[r][i] = fma(weights[r], v, sums[r][i]);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 16
      for (int i = 0; i < kCount; ++i) store(rows[row + r].out + d + i * kRegister, sums[r][i]);
  }

  template <int kRows>
  EXO_INLINE void row_outputs(int64_t row) {
    int64_t d = 0;
    constexpr int kVectors = kMostSums / kRows < 4 ? kMostSums / kRows : 4;
    constexpr int kWidth = kVectors * kLanes;
    for (; d + kWidth <= a.value_size; d += kWidth) outputs<kRows, kVectors>(row, d);
    for (; d < a.value_size; d += kLanes) outputs<kRows, 1>(row, d);
  }

  void compute(f32x16* columns) {
    all_scores(columns);
    for (int64_t row = 0; row < count; ++row) soften(rows[row]);
    int64_t row = 0;
    // More rows at once where every value has to be widened.
    if constexpr (sizeof(Stored) < sizeof(float) && kMostSums >= 8) {
      for (; row + 8 <= count; row += 8) row_outputs<8>(row);
    }
    for (; row + 4 <= count; row += 4) row_outputs<4>(row);
    for (; row + 2 <= count; row += 2) row_outputs<2>(row);
    for (; row < count; ++row) row_outputs<1>(row);
  }
};

// The keys that a row's mask lets through: from the first to the last one.
inline void find_keys(const Attention& a, int64_t position, AttentionRow& row) {
  row.first = 0;
  row.end = a.keys;
  if (a.kind == Mask::Causal) {
    row.end = std::max<int64_t>(0, a.keys - a.length + position + 1);
  } else if (a.kind == Mask::Bool || a.kind == Mask::Additive) {
    const int64_t step = a.mask_strides[3];
    const auto seen = [&](int64_t j) {
      if (a.kind == Mask::Bool) return reinterpret_cast<const bool*>(row.mask)[j * step];
      // What masks use for minus infinity.
      return reinterpret_cast<const float*>(row.mask)[j * step] > -1e9f;
    };
    while (row.end > 0 && !seen(row.end - 1)) --row.end;
    while (row.first < row.end && !seen(row.first)) ++row.first;
  }
}

template <class F>
void attend(const Attention& a, int64_t begin, int64_t end) {
  using Stored = typename F::Stored;
  const int64_t shared = a.heads / a.kv_heads, rows = shared * a.length;
  const int64_t tiles = (rows + kRowsAtOnce - 1) / kRowsAtOnce;
  float* scores = scratch<float, 7>(kRowsAtOnce * a.keys);
  f32x16* columns = scratch<f32x16, 8>(a.size);
  for (int64_t item = begin; item < end; ++item) {
    // The last tiles of a causal prompt have the most keys: they come first.
    const int64_t tile = tiles - 1 - item % tiles, kv = item / tiles % a.kv_heads;
    const int64_t b = item / tiles / a.kv_heads;
    AttentionTile<F> t{
        a, static_cast<const Stored*>(a.k) + b * a.k_strides[0] + kv * a.k_strides[1],
        static_cast<const Stored*>(a.v) + b * a.v_strides[0] + kv * a.v_strides[1], {}, 0, a.keys,
        0};
    t.count = std::min(kRowsAtOnce, rows - tile * kRowsAtOnce);
    for (int64_t i = 0; i < t.count; ++i) {
      const int64_t r = tile * kRowsAtOnce + i, l = r / shared, h = kv * shared + r % shared;
      AttentionRow& row = t.rows[i];
      row.query = a.q + b * a.q_strides[0] + h * a.q_strides[1] + l * a.q_strides[2];
      row.out = a.out + ((b * a.heads + h) * a.length + l) * a.value_size;
      const int64_t mask = b * a.mask_strides[0] + h * a.mask_strides[1] + l * a.mask_strides[2];
      row.mask = !a.mask ? nullptr
                         : static_cast<const char*>(a.mask) + mask * (a.kind == Mask::Bool ? 1 : 4);
      row.scores = scores + i * a.keys;
      row.sink = a.sinks ? a.sinks[h] : kNegative;
      find_keys(a, l, row);
      t.first = std::min(t.first, row.first);
      t.end = std::max(t.end, row.end);
    }
    t.compute(columns);
  }
}

inline void run_attention(const Attention& a) {
  const int64_t rows = a.heads / a.kv_heads * a.length;
  const int64_t items = a.batch * a.kv_heads * ((rows + kRowsAtOnce - 1) / kRowsAtOnce);
  const int64_t each = std::min(rows, kRowsAtOnce) * a.keys * (a.size + a.value_size);
  const int64_t grain = std::max<int64_t>(1, 131072 / std::max<int64_t>(1, each));
  with_format(a.held, [&](auto format) {
    using F = decltype(format);
    Pool::shared().run(items, grain, [&](int64_t begin, int64_t end) { attend<F>(a, begin, end); });
  });
}

}  // namespace exo::EXO_ISA
