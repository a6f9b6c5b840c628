// Intel's advanced matrix extensions: products of tiles of sixteen rows of 64 bytes.
//
// A tile register holds C (rows, 16 words), A (rows, 64 bytes) or B (16 rows of 16 columns, four
// bytes or two bfloat16 of each column beside each other). (Intel's Software Developer's Manual,
// volume 1, chapter 18.)
#pragma once

#if defined(__AMX_TILE__)

#include <cstring>

#include "simd.h"

namespace exo::EXO_ISA {

constexpr int64_t kTileRows = 16, kTileBytes = 64;

// Shapes the eight registers for as long as it lives, on this thread: C of `rows` in 0 to 3, A of
// `rows` from 4 on, and B from `first_b` on; `bytes` of A's rows are multiplied.
class Tiles {
 public:
  Tiles(int rows, int bytes, int first_b = 6) {
    alignas(64) struct {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t rows[16] = {};
    } shape;
    for (int i = 0; i < 8; ++i) {
      shape.row_bytes[i] = i >= 4 && i < first_b ? bytes : kTileBytes;
      shape.rows[i] = i < first_b ? rows : bytes / 4;
    }
    _tile_loadconfig(&shape);
  }
  ~Tiles() { _tile_release(); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;
};

// The compiler does not know that tiles read and write memory.
EXO_INLINE void memory_is_settled() {
  asm volatile("" ::: "memory");
}

}  // namespace exo::EXO_ISA

#endif
