"""Reading an encoder's weights into memory."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# mlx's own stubs leave some parameters untyped.

from pathlib import Path
from typing import cast

import mlx.core as mx

from exo.errors import ModelInvalid
from exo.inference.engine import OnProgress
from exo.inference.kernels.layers import swap
from exo.inference.kernels.library import Library
from exo.inference.mlx.casting import to_float32
from exo.inference.mlx.encoder import Encoder
from exo.models.encoder_folder import read_encoder
from exo.models.folder import weight_files
from exo.models.json_files import read_json


def open_encoder(path: Path, *, cast_float32: bool, kernels: Library | None = None) -> Encoder:
    """An encoder with its weights not read yet, packed for `kernels`. With `cast_float32`, what is
    not packed becomes float32.

    Raises:
        ModelInvalid: its files are not whole.
    """
    files = weight_files(path)
    found = read_encoder(path, read_json(path / "config.json"), files)
    arrays: dict[str, mx.array] = {}
    for file in files:
        try:
            arrays |= cast("dict[str, mx.array]", mx.load(str(file)))
        except RuntimeError as error:
            raise ModelInvalid(f"{file} cannot be read: {error}.") from error
    weights: list[tuple[str, mx.array]] = []
    for name, pieces in found.sources.items():
        parts = [arrays[found.name(piece.name)] for piece in pieces]
        weights.append((name, parts[0] if len(parts) == 1 else mx.concatenate(parts)))
    model = Encoder(found.shape)
    model.load_weights(weights)
    model.eval()
    if kernels is not None:
        swap(model, kernels)
    if cast_float32:
        to_float32(model)
    return model


def read_weights(model: Encoder, progress: OnProgress) -> None:
    """Read the weights from disk. Progress counts layers."""
    for done, layer in enumerate(model.layers):
        progress(done, len(model.layers))
        mx.eval(layer.parameters())
    mx.eval(model.parameters())
    progress(len(model.layers), len(model.layers))
