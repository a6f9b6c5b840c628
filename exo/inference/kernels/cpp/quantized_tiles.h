// Products of many rows with quantised matrices in tiles.
//
// The high and the low bytes of activations are each multiplied with the codes exactly. So the sums
// of a group, and all bits of the result, are those of `quantized.h`.
#pragma once

#include "bytes.h"
#include "tiles.h"

#if defined(__AMX_INT8__)

namespace exo::EXO_ISA {

// Two blocks of columns of one group, unpacked to quads; and scales and biases.
struct TilePanel {
  alignas(64) uint8_t codes[2][128 * kLanes];
  f32x16 scales[2], biases[2];
};

// Sums over a group of products of sixteen rows with two blocks, for the high and the low bytes.
struct TileSums {
  alignas(64) int32_t high[2][kTileRows * kLanes], low[2][kTileRows * kLanes];
};

// One step of 64 codes or less, of which the tiles of columns are loaded.
template <bool kSigned>
EXO_INLINE void multiply_tiles(const Bytes& x, int64_t from) {
  _tile_loadd(4, x.high + from, x.group);
  _tile_loadd(5, x.low + from, x.group);
  if constexpr (kSigned) {
    _tile_dpbssd(0, 4, 6);
    _tile_dpbssd(2, 4, 7);
    _tile_dpbssd(1, 5, 6);
    _tile_dpbssd(3, 5, 7);
  } else {
    _tile_dpbsud(0, 4, 6);
    _tile_dpbsud(2, 4, 7);
    _tile_dpbsud(1, 5, 6);
    _tile_dpbsud(3, 5, 7);
  }
}

EXO_INLINE void load_columns(const TilePanel& panel, int64_t k) {
  _tile_loadd(6, panel.codes[0] + k * kLanes, kTileBytes);
  _tile_loadd(7, panel.codes[1] + k * kLanes, kTileBytes);
}

// Sixteen rows from `first` on with the whole group.
template <bool kSigned>
EXO_INLINE void multiply_group(const TilePanel& panel, const Bytes& x, int64_t g, int64_t first) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  const int64_t from = x.at(g, first);
  if (x.group <= kTileBytes) return multiply_tiles<kSigned>(x, from);
  for (int64_t k = 0; k < x.group; k += kTileBytes) {
    load_columns(panel, k);
    multiply_tiles<kSigned>(x, from + k);
  }
}

EXO_INLINE void store_tiles(TileSums& to) {
  memory_is_settled();
  _tile_stored(0, to.high[0], kTileBytes);
  _tile_stored(1, to.low[0], kTileBytes);
  _tile_stored(2, to.high[1], kTileBytes);
  _tile_stored(3, to.low[1], kTileBytes);
  memory_is_settled();
}

// Adds the sums of one group of rows from `first` on to totals (rows, 2).
EXO_INLINE void add_tiles(
    const TileSums& sums, const TilePanel& panel, const Integers& x, int64_t g, int64_t first,
    f32x16* totals) {
  const int64_t rows = std::min(kTileRows, x.rows - first);
  const float *x_scales = x.scales_of(g, first), *x_sums = x.sums_of(g, first);
  // Copies, which no store to totals can change.
  const f32x16 scales[2] = {panel.scales[0], panel.scales[1]};
  const f32x16 biases[2] = {panel.biases[0], panel.biases[1]};
  totals += 2 * first;
  for (int64_t r = 0; r < rows; ++r) {
    const float scale = x_scales[r], sum = x_sums[r];
    for (int i = 0; i < 2; ++i) {
      const i32x16 high = load<i32x16>(sums.high[i] + r * kLanes);
      const i32x16 products = (high << 8) + load<i32x16>(sums.low[i] + r * kLanes);
      totals[2 * r + i] =
          add_group(totals[2 * r + i], products, scales[i], biases[i], scale, sum);
    }
  }
}

}  // namespace exo::EXO_ISA

#endif
