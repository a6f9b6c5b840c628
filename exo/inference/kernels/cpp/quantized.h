// Products with quantised matrices.
//
// Sixteen columns lie beside each other, group after group along K: the codes of a group, its
// scales, its biases. A lane is a column. Codes are unpacked to pairs of 16-bit integers and
// multiplied with the rounded activations exactly; each group's integer sum is then scaled and
// added to a float32. So the order within a group does not matter, that of the groups is always
// the same, and a row gives the same bits whatever rows are computed beside it.
#pragma once

#include "bytes.h"
#include "codes.h"
#include "fetch.h"
#include "quantized_tiles.h"
#include "rows.h"

namespace exo::EXO_ISA {

// The scales of sixteen columns, or, as the second of the two, their biases.
EXO_INLINE f32x16 read_scales(const Format& f, const uint8_t* from, int which) {
  from += 16 * which * size_of(f.scales);
  switch (f.scales) {
    case Type::BFloat16:
      return BFloat16::read(from);
    case Type::Float16:
      return Float16::read(from);
    default:
      return Float32::read(from);
  }
}

// Codes of one group of two blocks, unpacked, used by tiles of as many rows as registers hold.
#if defined(__AVX512F__)
constexpr int kTile = 12;
#else
constexpr int kTile = 3;
#endif

struct Panel {
  alignas(64) int16_t codes[64 * 2 * kLanes * 2];
  f32x16 scales[2], biases[2];
  int64_t pairs;
};

template <int kRows>
void tile(const Panel& panel, const Integers& x, int64_t g, int64_t first, f32x16* totals) {
  constexpr int kBoth = 2 * kParts;
  Ints products[kRows][kBoth] = {};
  const int16_t* values = x.values_of(g, first);
  for (int64_t p = 0; p < panel.pairs; ++p) {
    const auto code = [&](int i) { return load<Ints>(panel.codes + p * 64 + i * 2 * kRegister); };
    const auto pair = [&](int r) { return splat_pair(values + r * x.group + 2 * p); };
    // Either all codes or the pairs of all rows are kept in registers: whichever are fewer.
    if constexpr (kBoth < kRows) {
      Ints codes[kBoth];
#pragma GCC unroll 8
      for (int i = 0; i < kBoth; ++i) codes[i] = code(i);
#pragma GCC unroll 12
      for (int r = 0; r < kRows; ++r) {
        const Ints one = pair(r);
#pragma GCC unroll 8
        for (int i = 0; i < kBoth; ++i) products[r][i] = dot2(products[r][i], codes[i], one);
      }
    } else {
      Ints pairs[kRows];
#pragma GCC unroll 12
      for (int r = 0; r < kRows; ++r) pairs[r] = pair(r);
#pragma GCC unroll 8
      for (int i = 0; i < kBoth; ++i) {
        const Ints one = code(i);
#pragma GCC unroll 12
        for (int r = 0; r < kRows; ++r) products[r][i] = dot2(products[r][i], one, pairs[r]);
      }
    }
  }
  float* to = reinterpret_cast<float*>(totals);
  const auto *scales = reinterpret_cast<const float*>(panel.scales),
             *biases = reinterpret_cast<const float*>(panel.biases);
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r, to += 2 * kLanes) {
    const float scale = x.scales_of(g, first)[r], sum = x.sums_of(g, first)[r];
#pragma GCC unroll 8
    for (int i = 0; i < kBoth; ++i) {
      const int at = i * kRegister;
      const Floats total = add_group(
          load<Floats>(to + at), products[r][i], load<Floats>(scales + at),
          load<Floats>(biases + at), scale, sum);
      store(to + at, total);
    }
  }
}

template <int kRows = kTile>
void some_rows(
    int64_t rows, const Panel& panel, const Integers& x, int64_t g, int64_t first, f32x16* totals) {
  if (rows == kRows) {
    tile<kRows>(panel, x, g, first, totals);
  } else if constexpr (kRows > 1) {
    some_rows<kRows - 1>(rows, panel, x, g, first, totals);
  }
}

template <class U, bool kTable, int kPairs>
struct QuantizedKernels {
  static constexpr int64_t kUnit = 2 * kPairs;

  // The sums over group g of some rows with one block.
  template <int kRows>
  static EXO_INLINE void sum_pairs(
      const Integers& x, int64_t g, int64_t first, const uint8_t* from, Ints (*all)[kParts]) {
    // More sums than rows, so that one product need not wait for the one before.
    constexpr int kSums = kRows == 1 ? 4 : kRows == 2 ? 2 : 1;
    Ints sums[kRows][kSums][kParts] = {};
    const int16_t* values[kRows];
    for (int r = 0; r < kRows; ++r) values[r] = x.values_of(g, first + r);
    for (int64_t k = 0; k < x.group; k += kUnit, from += U::kBytes) {
      fetch_ahead(from, U::kBytes);
#pragma GCC unroll 16
      for (int p = 0; p < kPairs; ++p) {
        Ints codes[kParts];
#pragma GCC unroll 4
        for (int i = 0; i < kParts; ++i) codes[i] = U::pair(from + 4 * i * kRegister, p);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
          const Ints pair = splat_pair(values[r] + k + p * 2);
#pragma GCC unroll 4
          for (int i = 0; i < kParts; ++i) {
            Ints& to = sums[r][p % kSums][i];
            to = dot2(to, codes[i], pair);
          }
        }
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int i = 0; i < kParts; ++i) {
        all[r][i] = sums[r][0][i];
#pragma GCC unroll 4
        for (int s = 1; s < kSums; ++s) all[r][i] += sums[r][s][i];
      }
    }
  }

#if defined(__AVX512VNNI__)
  // The same by bytes: codes are unpacked by half as many instructions.
  static constexpr bool kByBytes = U::kPlain;

  template <int kRows>
  static EXO_INLINE void sum_quads(
      const Bytes& x, int64_t g, int64_t first, const uint8_t* from, Ints (*all)[kParts]) {
    constexpr int kSums = kRows == 1 ? 2 : 1;
    Ints high[kRows][kSums] = {}, low[kRows][kSums] = {};
    const int64_t at = x.at(g, first);
    for (int64_t k = 0; k < x.group; k += kUnit, from += U::kBytes) {
#pragma GCC unroll 8
      for (int q = 0; q < kPairs / 2; ++q) {
        if (q % U::kApart == 0) fetch_ahead(from + q / U::kApart * 64, 64);
        const Words codes = U::quad(from, q);
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) {
          const int64_t place = at + r * x.group + k + 4 * q;
          high[r][q % kSums] = dot4(high[r][q % kSums], codes, x.high + place);
          low[r][q % kSums] = dot4(low[r][q % kSums], codes, x.low + place);
        }
      }
    }
    for (int r = 0; r < kRows; ++r) {
      for (int s = 1; s < kSums; ++s) high[r][0] += high[r][s], low[r][0] += low[r][s];
      all[r][0] = (high[r][0] << 8) + low[r][0];
    }
  }
#else
  static constexpr bool kByBytes = false;
  struct Bytes {};
#endif

  // Few rows: codes are unpacked into registers and used for all rows at once.
  template <int kRows>
  static void few(
      const Quantized& q, const Integers& x, const Bytes& bytes, int64_t begin, int64_t end) {
    const int64_t groups = q.k / q.format.group;
    const int64_t codes = q.format.code_bytes(), stride = q.format.group_bytes();
    for (int64_t block = begin; block < end; ++block) {
      const uint8_t* from = q.packed + block * q.format.block_bytes(q.k);
      Floats total[kRows][kParts] = {};
      for (int64_t g = 0; g < groups; ++g, from += stride) {
        fetch_ahead(from + codes, stride - codes);
        Ints products[kRows][kParts];
        if constexpr (kByBytes) sum_quads<kRows>(bytes, g, 0, from, products);
        else sum_pairs<kRows>(x, g, 0, from, products);
        const f32x16 scales = read_scales(q.format, from + codes, 0);
        f32x16 biases{};
        if constexpr (!kTable) biases = read_scales(q.format, from + codes, 1);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
          const float scale = *x.scales_of(g, r), sum = *x.sums_of(g, r);
#pragma GCC unroll 4
          for (int i = 0; i < kParts; ++i) {
            total[r][i] = add_group(
                total[r][i], products[r][i], part(scales, i), part(biases, i),
                scale, sum);
          }
        }
      }
      for (int r = 0; r < kRows; ++r) write(q, r, block, load<f32x16>(total[r]));
    }
  }

  static EXO_INLINE void write(const Quantized& q, int64_t row, int64_t block, f32x16 v) {
    const int64_t n = block * kLanes, left = std::min<int64_t>(kLanes, q.n - n);
    char* to = static_cast<char*>(q.out) + (at(q.out_rows, row) * q.n + n) * size_of(q.type);
    with_format(q.type, [&](auto format) {
      if (left == kLanes) {
        decltype(format)::write(to, v);
      } else {
        write_some<decltype(format)>(to, v, int(left));
      }
    });
  }

  template <class P>
  static EXO_INLINE void unpack_scales(const Quantized& q, const uint8_t* group, P& to, int side) {
    const uint8_t* from = group + q.format.code_bytes();
    to.scales[side] = read_scales(q.format, from, 0);
    to.biases[side] = f32x16{};
    if constexpr (!kTable) to.biases[side] = read_scales(q.format, from, 1);
  }

  static EXO_INLINE void unpack(const Quantized& q, int64_t block, int64_t g, Panel& to, int side) {
    const uint8_t* from = q.packed + block * q.format.block_bytes(q.k) + g * q.format.group_bytes();
    fetch_ahead(from, q.format.group_bytes());
    for (int64_t u = 0; u < to.pairs / kPairs; ++u) {
#pragma GCC unroll 16
      for (int p = 0; p < kPairs; ++p) {
        int16_t* codes = to.codes + (u * kPairs + p) * 64 + side * 32;
#pragma GCC unroll 4
        for (int i = 0; i < kParts; ++i) {
          store(codes + i * 2 * kRegister, U::pair(from + u * U::kBytes + 4 * i * kRegister, p));
        }
      }
    }
    unpack_scales(q, from, to, side);
  }

  // Two blocks at a time, group after group: `add` adds the products of all rows with the group that
  // is unpacked in `panel` to their totals.
  template <class P, class Add>
  static EXO_INLINE void by_panels(
      const Quantized& q, int64_t begin, int64_t end, P& panel, Add&& add) {
    const int64_t groups = q.k / q.format.group, blocks = (q.n + kLanes - 1) / kLanes;
    f32x16* totals = scratch<f32x16, 3>(q.rows * 2);
    for (int64_t at = begin; at < end; ++at) {
      // The last panel may have one block only: it is computed twice.
      const int64_t left = 2 * at, right = std::min(left + 1, blocks - 1);
      std::fill(totals, totals + 2 * q.rows, f32x16{});
      for (int64_t g = 0; g < groups; ++g) {
        unpack(q, left, g, panel, 0);
        unpack(q, right, g, panel, 1);
        add(g, totals);
      }
      for (int64_t r = 0; r < q.rows; ++r) {
        write(q, r, left, totals[2 * r]);
        if (right != left) write(q, r, right, totals[2 * r + 1]);
      }
    }
  }

  static void many(const Quantized& q, const Integers& x, int64_t begin, int64_t end) {
    Panel panel;
    panel.pairs = q.format.group / 2;
    by_panels(q, begin, end, panel, [&](int64_t g, f32x16* totals) {
      for (int64_t r = 0; r < q.rows; r += kTile) {
        some_rows(std::min<int64_t>(kTile, q.rows - r), panel, x, g, r, totals + 2 * r);
      }
    });
  }

#if defined(__AMX_INT8__)
  static EXO_INLINE void unpack(
      const Quantized& q, int64_t block, int64_t g, TilePanel& to, int side) {
    const uint8_t* from = q.packed + block * q.format.block_bytes(q.k) + g * q.format.group_bytes();
    fetch_ahead(from, q.format.group_bytes());
    uint8_t* codes = to.codes[side];
    for (int64_t k = 0; k < q.format.group; k += kUnit) {
#pragma GCC unroll 8
      for (int quad = 0; quad < kPairs / 2; ++quad, codes += 64) {
        store(codes, U::quad(from + k / kUnit * U::kBytes, quad));
      }
    }
    unpack_scales(q, from, to, side);
  }

  // As `many`. The tiles of some rows are multiplied while the sums of those before are added up.
  static void many_tiles(
      const Quantized& q, const Integers& x, const Bytes& bytes, int64_t begin, int64_t end) {
    const Tiles shape(
        int(std::min(kTileRows, q.rows)), int(std::min<int64_t>(kTileBytes, q.format.group)));
    TilePanel panel;
    TileSums sums[2];
    by_panels(q, begin, end, panel, [&](int64_t g, f32x16* totals) {
      memory_is_settled();
      load_columns(panel, 0);
      int64_t first = 0;
      for (int64_t r = 0; r < q.rows; first = r, r += kTileRows) {
        multiply_group<kTable>(panel, bytes, g, r);
        const TileSums& before = sums[first / kTileRows % 2];
        if (r > 0) add_tiles(before, panel, x, g, first, totals);
        store_tiles(sums[r / kTileRows % 2]);
      }
      add_tiles(sums[first / kTileRows % 2], panel, x, g, first, totals);
    });
  }
#endif

  // Up to here unpacking again for each few rows costs less than writing the codes down.
  static constexpr int kFew = 4;

  static void run(const Quantized& q) {
    const Integers x = round_rows(q.x, q.type, q.x_rows, q.rows, q.k, q.format.group);
    const int64_t blocks = (q.n + kLanes - 1) / kLanes, panels = (blocks + 1) / 2;
    Bytes bytes{};
#if defined(__AMX_INT8__)
    // With less than half of the rows of a tile the rest is as fast.
    if (q.rows > kTileRows / 2) {
      const int64_t whole = (q.rows + kTileRows - 1) / kTileRows * kTileRows;
      bytes = split_bytes(x, q.k / q.format.group, whole, U::kApart);
      return Pool::shared().run(panels, 1, [&](int64_t begin, int64_t end) {
        many_tiles(q, x, bytes, begin, end);
      });
    }
#endif
    if (q.rows > kFew) {
      return Pool::shared().run(panels, 1, [&](int64_t begin, int64_t end) {
        many(q, x, begin, end);
      });
    }
#if defined(__AVX512VNNI__)
    if constexpr (kByBytes) bytes = split_bytes(x, q.k / q.format.group, q.rows, U::kApart);
#endif
    // A range takes some microseconds: whoever is late to begin has little to be waited for.
    const int64_t grain = std::max<int64_t>(1, 4096 / (q.k * q.rows));
    Pool::shared().run(blocks, grain, [&](int64_t begin, int64_t end) {
      switch (q.rows) {
        case 1:
          return few<1>(q, x, bytes, begin, end);
        case 2:
          return few<2>(q, x, bytes, begin, end);
        case 3:
          return few<3>(q, x, bytes, begin, end);
        case 4:
          return few<4>(q, x, bytes, begin, end);
      }
    });
  }
};

inline void run_quantized_with(const Quantized& q) {
  if (q.format.fp4) {
    if (q.format.unit() == 16) return QuantizedKernels<Unit<4, true, 8>, true, 8>::run(q);
    return QuantizedKernels<Unit<4, true, 16>, true, 16>::run(q);
  }
  switch (q.format.bits) {
    case 2:
      return QuantizedKernels<Unit<2, false, 16>, false, 16>::run(q);
    case 3:
      return QuantizedKernels<Unit<3, false, 16>, false, 16>::run(q);
    case 4:
      return QuantizedKernels<Unit<4, false, 16>, false, 16>::run(q);
    case 5:
      return QuantizedKernels<Unit<5, false, 16>, false, 16>::run(q);
    case 6:
      return QuantizedKernels<Unit<6, false, 16>, false, 16>::run(q);
    case 8:
      return QuantizedKernels<Unit<8, false, 16>, false, 16>::run(q);
  }
}

inline void run_quantized(const Quantized& all) {
#if defined(__AMX_INT8__)
  constexpr int64_t most = 256;
#else
  constexpr int64_t most = 512;
#endif
  by_rows(all, most, [](const Quantized& q) { run_quantized_with(q); });
}

}  // namespace exo::EXO_ISA
