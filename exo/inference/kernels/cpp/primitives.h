// The kernels as operations of MLX: lazy, part of its graph, run on the stream's own thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "kernels.h"
#include "mlx/mlx.h"

namespace exo {

namespace mx = mlx::core;

// The kernels in use; null if there are none.
const Kernels* kernels();
// Use those called `name`, or the best for "". False if this machine cannot execute them.
bool use_kernels(const std::string& name);

// Packed forms (blocks, bytes) of weights (n, ...), or (experts, blocks, bytes) of (experts, n, ...).
mx::array pack_quantized(
    const mx::array& codes, const mx::array& scales, const std::optional<mx::array>& biases,
    int bits, int group);
mx::array pack_dense(const mx::array& weight);

// What a packed array holds.
struct Packed {
  std::optional<Format> format;  // none: numbers of `type`
  Type type;
  int64_t n, k;
};

// x (..., k) times the transpose of the packed (n, k): (..., n).
mx::array matmul(const mx::array& x, const mx::array& packed, const Packed& as);
// x (..., m, k), its leading axes broadcast with those of `experts`, each times the transpose of
// the expert's matrix: (..., m, n).
mx::array gather_matmul(
    const mx::array& x, const mx::array& packed, const mx::array& experts, const Packed& as);

// Rows of a packed matrix as float32: (..., k).
mx::array take_rows(const mx::array& packed, const mx::array& rows, const Packed& as);

mx::array rms_norm(const mx::array& x, const std::optional<mx::array>& weight, float epsilon);
mx::array gated(const mx::array& gate, const mx::array& up);
mx::array rope(
    const mx::array& x, int dims, bool traditional, float scale, const mx::array& offset,
    const mx::array& inverse);
mx::array attention(
    const mx::array& q, const mx::array& k, const mx::array& v, float scale, bool causal,
    const std::optional<mx::array>& mask, const std::optional<mx::array>& sinks);

}  // namespace exo
