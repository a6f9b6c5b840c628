// Products with matrices of bfloat16 in tiles.
//
// A float32 activation is three bfloat16 that add up to it exactly, so the products are exact and
// are summed in float32. A step is 32 elements of K, of which the tile unit adds up the even and
// the odd ones in order, each from 0, then both to the sum so far: first those of the high parts,
// then the middle ones, then the low ones. So every row gives the same bits in any company, which
// need not be those of a chain of fused multiply-adds.
#pragma once

#include "fetch.h"
#include "rows.h"
#include "tiles.h"

#if defined(__AMX_BF16__)

namespace exo::EXO_ISA {

constexpr int64_t kStep = 32, kColumns = 64, kColumnTiles = kColumns / kLanes;

// Rows of activations as bfloat16: part p of element (r, c) is at [c / 32][p][r][c % 32]. Rows are
// as many as fill whole tiles; what is in those that are more is of no importance.
struct Parts {
  uint16_t* values;
  int64_t rows, steps;
  int count;

  uint16_t* at(int64_t step, int part, int64_t r) const {
    return values + ((step * count + part) * rows + r) * kStep;
  }
};

// Sixteen numbers become up to three parts each, by cutting off bits.
EXO_INLINE void split_numbers(f32x16 x, const Parts& to, int64_t step, int64_t r, int64_t c) {
  for (int part = 0; part < to.count; ++part) {
    const u32x16 cut = (u32x16)x & 0xffff0000;
    store(to.at(step, part, r) + c, __builtin_convertvector(cut >> 16, u16x16));
    // What is infinite or not a number has no rest.
    const i32x16 finite = (i32x16)((cut & 0x7f800000) != 0x7f800000);
    x = (f32x16)((i32x16)(x - (f32x16)cut) & finite);
  }
}

inline Parts split_parts(const Dense& d) {
  const int64_t rows = (d.rows + kTileRows - 1) / kTileRows * kTileRows;
  const int64_t steps = (d.k + kStep - 1) / kStep;
  const int count = d.type == Type::BFloat16 ? 1 : 3;
  const Parts to{scratch<uint16_t, 6>(steps * count * rows * kStep), rows, steps, count};
  with_format(d.type, [&](auto format) {
    using F = decltype(format);
    Pool::shared().run(d.rows, std::max<int64_t>(1, 16384 / d.k), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const char* row = row_of(d.x, d.type, at(d.x_rows, r), d.k);
        const auto* x = reinterpret_cast<const typename F::Stored*>(row);
        for (int64_t c = 0; c < steps * kStep; c += kLanes) {
          const int64_t left = std::clamp<int64_t>(d.k - c, 0, kLanes);
          const f32x16 v = left == kLanes ? F::read(x + c) : read_some<F>(x + c, int(left));
          split_numbers(v, to, c / kStep, r, c % kStep);
        }
      }
    });
  });
  return to;
}

// A tile of columns of one step of a panel, which has 16 pairs of K by 64 columns.
EXO_INLINE const uint16_t* columns_of(const uint16_t* panel, int64_t step, int64_t tile) {
  return panel + step * kStep * kColumns + tile * 2 * kLanes;
}

constexpr int64_t kColumnStride = kColumns * 2 * sizeof(uint16_t);
constexpr int64_t kTotalStride = kColumns * sizeof(float);

// Up to sixteen rows with a panel: totals (rows, 64).
inline void few_rows(const Parts& x, const uint16_t* panel, float* totals) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  const bool split = x.count == 3;
  for (int64_t s = 0; s < x.steps; ++s) {
    fetch_ahead(columns_of(panel, s, 0), kStep * kColumns * sizeof(*panel));
    _tile_loadd(4, x.at(s, 0, 0), kTileBytes);
    if (split) _tile_loadd(5, x.at(s, 1, 0), kTileBytes);
    if (split) _tile_loadd(6, x.at(s, 2, 0), kTileBytes);
#define EXO_COLUMNS(tile)                                     \
  _tile_loadd(7, columns_of(panel, s, tile), kColumnStride);  \
  _tile_dpbf16ps(tile, 4, 7);                                 \
  if (split) _tile_dpbf16ps(tile, 5, 7);                      \
  if (split) _tile_dpbf16ps(tile, 6, 7);
    EXO_COLUMNS(0)
    EXO_COLUMNS(1)
    EXO_COLUMNS(2)
    EXO_COLUMNS(3)
#undef EXO_COLUMNS
  }
  _tile_stored(0, totals, kTotalStride);
  _tile_stored(1, totals + kLanes, kTotalStride);
  _tile_stored(2, totals + 2 * kLanes, kTotalStride);
  _tile_stored(3, totals + 3 * kLanes, kTotalStride);
}

// Steps [begin, end) of sixteen or, if kTwo, thirty-two rows from `first` on with two tiles of
// columns from `tile` on, added to totals.
template <bool kTwo>
EXO_INLINE void square(
    const Parts& x, const uint16_t* panel, int64_t begin, int64_t end, int64_t first, int64_t tile,
    float* totals) {
  float* to = totals + first * kColumns + tile * kLanes;
  _tile_loadd(0, to, kTotalStride);
  _tile_loadd(1, to + kLanes, kTotalStride);
  if constexpr (kTwo) {
    _tile_loadd(2, to + kTileRows * kColumns, kTotalStride);
    _tile_loadd(3, to + kTileRows * kColumns + kLanes, kTotalStride);
  }
  for (int64_t s = begin; s < end; ++s) {
    _tile_loadd(6, columns_of(panel, s, tile), kColumnStride);
    _tile_loadd(7, columns_of(panel, s, tile + 1), kColumnStride);
    for (int part = 0; part < x.count; ++part) {
      _tile_loadd(4, x.at(s, part, first), kTileBytes);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      if constexpr (kTwo) {
        _tile_loadd(5, x.at(s, part, first + kTileRows), kTileBytes);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
    }
  }
  _tile_stored(0, to, kTotalStride);
  _tile_stored(1, to + kLanes, kTotalStride);
  if constexpr (kTwo) {
    _tile_stored(2, to + kTileRows * kColumns, kTotalStride);
    _tile_stored(3, to + kTileRows * kColumns + kLanes, kTotalStride);
  }
}

// Steps of K whose activations stay in a cache for all panels of a range.
constexpr int64_t kStepsAtOnce = 8;

// Many rows with `panels` panels that lie `stride` apart: totals (panels, x.rows, 64), from 0.
inline void many_rows(
    const Parts& x, const uint16_t* panel, int64_t panels, int64_t stride, float* totals) {
  for (int64_t s = 0; s < x.steps; s += kStepsAtOnce) {
    const int64_t end = std::min(s + kStepsAtOnce, x.steps);
    for (int64_t p = 0; p < panels; ++p) {
      const uint16_t* weights = panel + p * stride;
      float* to = totals + p * x.rows * kColumns;
      fetch_ahead(columns_of(weights, s, 0), (end - s) * kStep * kColumns * sizeof(*weights));
      for (int64_t r = 0; r < x.rows; r += 2 * kTileRows) {
        for (int64_t tile = 0; tile < kColumnTiles; tile += 2) {
          if (r + kTileRows < x.rows) square<true>(x, weights, s, end, r, tile, to);
          else square<false>(x, weights, s, end, r, tile, to);
        }
      }
    }
  }
}

// Panels [begin, end); `write(row, panel, vectors)` takes what has been computed.
template <class Write>
void panels_in_tiles(
    const Dense& d, const Parts& x, int64_t begin, int64_t end, int64_t at_once, Write&& write) {
  const bool few = d.rows <= kTileRows;
  const Tiles shape(int(std::min(d.rows, kTileRows)), kTileBytes, few ? 7 : 6);
  const int64_t stride = x.steps * kStep * kColumns;
  float* totals = scratch<float, 4>(at_once * x.rows * kColumns);
  for (int64_t panel = begin; panel < end; panel += at_once) {
    const int64_t panels = std::min(at_once, end - panel);
    const auto* weights = reinterpret_cast<const uint16_t*>(d.packed) + panel * stride;
    if (!few) std::fill(totals, totals + panels * x.rows * kColumns, 0.0f);
    memory_is_settled();
    if (few) few_rows(x, weights, totals);
    else many_rows(x, weights, panels, stride, totals);
    memory_is_settled();
    for (int64_t p = 0; p < panels; ++p) {
      for (int64_t r = 0; r < d.rows; ++r) {
        write(r, panel + p, reinterpret_cast<const f32x16*>(totals + (p * x.rows + r) * kColumns));
      }
    }
  }
}

}  // namespace exo::EXO_ISA

#endif
