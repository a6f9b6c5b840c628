"""Opening an image model's folder, and reading its weights piece by piece."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# mlx's own stubs leave some parameters untyped.

import copy
from collections.abc import Iterator, Sequence
from typing import Any, cast

import mlx.core as mx
from mflux.models.common.config.model_config import AVAILABLE_MODELS, ModelConfig
from mlx import nn
from mlx.utils import tree_flatten

from exo.errors import ModelInvalid
from exo.inference.engine import OnProgress
from exo.inference.image.mflux.family import Family
from exo.inference.image.mflux.flux import Flux
from exo.inference.image.mflux.flux2 import Flux2
from exo.inference.image.mflux.qwen import Qwen
from exo.inference.image.mflux.z_image import ZImage
from exo.inference.kernels.layers import swap
from exo.inference.kernels.library import Library
from exo.inference.mlx.casting import to_float32
from exo.models.card import ModelCard
from exo.models.image_file import ImageFile
from exo.models.image_variants import VARIANTS

_FLUX2_LENGTH = 512
# What mflux and the libraries below it raise over files that they cannot make a model of.
_FAILURES = (
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


def open_family(card: ModelCard, file: ImageFile | None) -> Family:
    """The model of a card that was read from its folder, its weights not read yet.

    Raises:
        ModelInvalid: mflux cannot make a model of the files.
    """
    try:
        return _open(card, file)
    except _FAILURES as error:
        raise ModelInvalid(
            f"The model at {card.path} cannot be loaded: {type(error).__name__}: {error}.",
            hint="Copy or download it again.",
        ) from error


def _open(card: ModelCard, file: ImageFile | None) -> Family:
    variant = VARIANTS[card.architecture]
    path, config = str(card.path), model_config(variant.mflux, file)
    match variant.family:
        case "flux":
            return Flux(path, config, references=variant.edit)
        case "flux2":
            length = file.max_sequence_length if file else None
            groups = file.vae_norm_groups if file else None
            return Flux2(
                path,
                config,
                max_sequence_length=length or _FLUX2_LENGTH,
                max_pixels=card.image.max_pixels if card.image else None,
                vae_norm_groups=groups,
            )
        case "qwen-image":
            return Qwen(path, config, references=variant.edit)
        case _:
            return ZImage(path, config)


def model_config(name: str, file: ImageFile | None) -> ModelConfig:
    """mflux's own settings of a model, with the folder's in their place."""
    config = copy.copy(AVAILABLE_MODELS[name])
    if file is not None:
        config.transformer_overrides = {**config.transformer_overrides, **file.transformer}
        config.text_encoder_overrides = {**config.text_encoder_overrides, **file.text_encoder}
        if file.max_sequence_length is not None:
            config.max_sequence_length = file.max_sequence_length
    return config


def pack_for(kernels: Library, family: Family) -> None:
    """Have the kernels compute a model whose weights are not read yet."""
    for _, module in family.modules():
        swap(module, kernels)


def in_float32(family: Family) -> None:
    """Compute in float32 in this process from now on, with all weights that are not packed."""
    ModelConfig.precision = mx.float32
    for _, module in family.modules():
        to_float32(module)


def read(family: Family, progress: OnProgress) -> int:
    """Read the weights from disk; return their bytes. Progress counts pieces."""
    pieces = [piece for _, module in family.modules() for piece in _pieces(module)]
    for done, piece in enumerate(pieces):
        progress(done, len(pieces))
        mx.eval(piece.parameters())
    # What is in none of the lists.
    mx.eval([module.parameters() for _, module in family.modules()])
    progress(len(pieces), len(pieces))
    return sum(size_of(module) for _, module in family.modules())


def read_transformer(family: Family, progress: OnProgress) -> int:
    """Read what looks at pictures alone; return its bytes."""
    module = dict(family.modules())["transformer"]
    pieces = list(_pieces(module))
    for done, piece in enumerate(pieces):
        progress(done, len(pieces))
        mx.eval(piece.parameters())
    mx.eval(module.parameters())
    progress(len(pieces), len(pieces))
    return size_of(module)


def read_blocks(blocks: Sequence[nn.Module], progress: OnProgress) -> int:
    """Read some blocks alone; return their bytes. What else they need is read when it is."""
    for done, block in enumerate(blocks):
        progress(done, len(blocks))
        mx.eval(block.parameters())
    progress(len(blocks), len(blocks))
    return sum(map(size_of, blocks))


def size_of(module: nn.Module) -> int:
    """Bytes of all parameters."""
    flat = cast("list[tuple[str, mx.array]]", tree_flatten(module.parameters()))
    return sum(int(array.nbytes) for _, array in flat)


def _pieces(module: nn.Module) -> Iterator[nn.Module]:
    """The members of the lists in a module, which are its layers or blocks."""
    children = cast("dict[str, Any]", module.children())
    for child in children.values():
        if isinstance(child, list):
            yield from (part for part in cast("list[Any]", child) if isinstance(part, nn.Module))
        elif isinstance(child, nn.Module):
            yield from _pieces(child)
