"""Numbers of half precision as float32."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# mlx's own stubs leave some parameters untyped.

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_map

HALF = {"float16": mx.float16, "bfloat16": mx.bfloat16}


def to_float32(module: nn.Module) -> None:
    """Have what is not packed computed in float32. Lazy: nothing is read for it."""
    module.update(tree_map(_to_float32, module.parameters()))


def _to_float32(array: mx.array) -> mx.array:
    return array.astype(mx.float32) if array.dtype in HALF.values() else array
