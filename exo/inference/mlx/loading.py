"""Reading a model's weights into memory, layer by layer."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# mlx's own stubs leave some parameters untyped.

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten

from exo.errors import ModelInvalid
from exo.inference.engine import OnProgress
from exo.inference.kernels.layers import swap
from exo.inference.kernels.library import Library
from exo.inference.messages import Load
from exo.inference.mlx.adapter import (
    can_batch,
    longest_cut,
    make_prompt_cache,
    obstacle_to_cutting,
    open_model,
)
from exo.inference.mlx.casting import HALF, to_float32
from exo.inference.mlx.held import KvForm
from exo.inference.mlx.quantised import check_quantisable
from exo.inference.mlx.split import SplitStage
from exo.inference.mlx.stage import Stage, WholeModel
from exo.inference.mlx.together import SharedModel, shard
from exo.inference.mlx.trace import trace


@dataclass(frozen=True)
class Shard:
    """The layers of one rank, and what all ranks must know of the whole model: its config, whether
    its sequences can be rows of a batch, up to how many tokens their caches can be cut, and what
    keeps them from being cut later, if anything does."""

    stage: Stage
    config: dict[str, Any]
    batchable: bool
    cuttable: int
    obstacle: str | None


def open_shard(
    load: Load, kernels: Library | None = None, group: mx.distributed.Group | None = None
) -> Shard:
    """The layers that `load` asks for, or this rank's part of all of them in a `group`, with their
    weights not read yet, and packed for `kernels`.

    With `cast_float32`, everything that is not packed becomes float32: MLX's CPU kernels
    accumulate in the dtype of the scales, and in bfloat16 that costs 5-10% of accuracy per matmul.

    Raises:
        ModelInvalid: the architecture is unknown or cannot be split so, or the weights do not fit.
    """
    form = KvForm(load.kv_bits, HALF.get(load.kv_dtype))
    whole = open_whole(
        load.path,
        cast_float32=load.cast_float32,
        kernels=kernels,
        form=form,
        group=group if load.tensor else None,
    )
    if load.size == 1:
        return whole
    model = whole.stage.model
    if load.tensor:
        stage = SharedModel(model, form, last=load.rank == 0)
    else:
        stage = SplitStage(model, trace(model), load.start_layer, load.end_layer, form)
    return replace(whole, stage=stage)


def open_whole(
    path: Path,
    *,
    cast_float32: bool,
    kernels: Library | None = None,
    form: KvForm | None = None,
    group: mx.distributed.Group | None = None,
) -> Shard:
    """All layers of a model, or this rank's part of them in a `group`, with their weights not read
    yet; otherwise as `open_shard`."""
    model, config = _open(path)
    if group is not None:
        # Before the cast: what other ranks have need not be cast.
        shard(model, group, config)
    if form is not None and form.bits is not None:
        check_quantisable(model, make_prompt_cache(model), form.bits)
    if kernels is not None:
        swap(model, kernels)
    if cast_float32:
        to_float32(model)
    return Shard(
        WholeModel(model, form),
        config,
        can_batch(model),
        longest_cut(model),
        obstacle_to_cutting(model),
    )


def read(stage: Stage, load: Load, progress: OnProgress) -> None:
    """Read the weights of a stage from disk. Progress counts its layers."""
    layers: list[nn.Module] = list(getattr(stage.model, "layers", []))
    own = layers[load.start_layer : load.end_layer]
    for done, layer in enumerate(own):
        progress(done, len(own))
        if load.tensor:
            _read_singly(layer)
        mx.eval(layer.parameters())
    mx.eval(stage.model.parameters())
    progress(len(own), len(own))


def _read_singly(layer: nn.Module) -> None:
    """Read one array after the other: each is read whole, and a part of it stays."""
    for _, array in cast("list[tuple[str, mx.array]]", tree_flatten(layer.parameters())):
        mx.eval(array)
        mx.clear_cache()


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


def _first_line(error: Exception) -> str:
    """The first line, and the next one where the first announces it (`Missing 1 parameters:`)."""
    lines = str(error).strip().splitlines() or ["no reason given"]
    text = " ".join(lines[:2]) if lines[0].rstrip().endswith(":") else lines[0]
    return text[:300]
