"""Reading a model's weights into memory, layer by layer."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# mlx's own stubs leave some parameters untyped.

from pathlib import Path
from typing import Any, cast

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten, tree_map

from exo.errors import ModelInvalid
from exo.inference.engine import OnProgress
from exo.inference.mlx.adapter import open_model

_HALF = (mx.float16, mx.bfloat16)


def load(path: Path, cast_float32: bool, progress: OnProgress) -> tuple[nn.Module, dict[str, Any]]:
    """The model in memory, and its config. Progress counts layers.

    With `cast_float32`, everything that is not packed becomes float32: MLX's CPU kernels
    accumulate in the dtype of the scales, and in bfloat16 that costs 5-10% of accuracy per matmul.

    Raises:
        ModelInvalid: the architecture is unknown, or the weights do not fit it.
    """
    model, config = _open(path)
    if cast_float32:
        model.update(tree_map(_to_float32, model.parameters()))
    layers: list[nn.Module] = list(getattr(model, "layers", []))
    for done, layer in enumerate(layers):
        progress(done, len(layers))
        mx.eval(layer.parameters())
    mx.eval(model.parameters())
    progress(len(layers), len(layers))
    return model, config


def size_of(model: nn.Module) -> int:
    """Bytes of all parameters."""
    flat = cast("list[tuple[str, mx.array]]", tree_flatten(model.parameters()))
    return sum(int(array.nbytes) for _, array in flat)


def _open(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    try:
        return open_model(path)
    except ValueError as error:
        raise ModelInvalid(
            f"The model at {path} cannot be loaded: {_first_line(error)}",
            hint="Is its architecture one that mlx-lm knows, and are its files of one model?",
        ) from error
    except (KeyError, TypeError, RuntimeError, FileNotFoundError) as error:
        raise ModelInvalid(
            f"The model at {path} cannot be loaded: {type(error).__name__}: {_first_line(error)}",
            hint="Copy or download it again.",
        ) from error


def _to_float32(array: mx.array) -> mx.array:
    return array.astype(mx.float32) if array.dtype in _HALF else array


def _first_line(error: Exception) -> str:
    """The first line, and the next one where the first announces it (`Missing 1 parameters:`)."""
    lines = str(error).strip().splitlines() or ["no reason given"]
    text = " ".join(lines[:2]) if lines[0].rstrip().endswith(":") else lines[0]
    return text[:300]
