"""A model's layers with their weights packed for the kernels.

Each is the model's own layer with another class, a subclass of what it was: names, attributes and
`isinstance` stay as the model's code expects them.
"""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

from typing import Any, ClassVar

import mlx.core as mx
from mlx import nn
from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchLinear

from exo.inference.kernels.library import Library, Packed

_FLOATS = {mx.float32: "float32", mx.bfloat16: "bfloat16", mx.float16: "float16"}
# Groups that each mode may have.
_GROUPS = {"affine": (32, 64, 128), "mxfp4": (32,), "nvfp4": (16,)}


def swap(model: nn.Module, library: Library) -> int:
    """Replace the layers of a model that the kernels know by ones that use them; returns how many.

    Lazy: weights are packed when they are evaluated, and what they were packed from is freed.
    """
    _PackedLayer.library = library
    count = 0
    for module in model.modules():
        pack = _PACKERS.get(type(module))
        count += pack is not None and pack(module, library)
    return count


class _PackedLayer(nn.Module):
    """`packed` holds what `weight` (and scales and biases) did."""

    library: ClassVar[Library]
    packed: mx.array
    _holds: Packed

    def _multiply(self, x: mx.array) -> mx.array:
        y = self.library.matmul(x, self.packed, self._holds)
        return y + self["bias"] if "bias" in self else y

    def _choose(self, x: mx.array, experts: mx.array) -> mx.array:
        y = self.library.gather_matmul(x, self.packed, experts, self._holds)
        return y + mx.expand_dims(self["bias"][experts], -2) if "bias" in self else y


class PackedLinear(_PackedLayer, nn.Linear):
    def __call__(self, x: mx.array) -> mx.array:
        return self._multiply(x)


class PackedQuantizedLinear(_PackedLayer, nn.QuantizedLinear):
    def __call__(self, x: mx.array) -> mx.array:
        return self._multiply(x)


class _PackedTable(_PackedLayer):
    def __call__(self, x: mx.array) -> mx.array:
        return self.library.take_rows(self.packed, x, self._holds)

    def as_linear(self, x: mx.array) -> mx.array:
        return self._multiply(x)


class PackedEmbedding(_PackedTable, nn.Embedding):
    pass


class PackedQuantizedEmbedding(_PackedTable, nn.QuantizedEmbedding):
    pass


class PackedSwitchLinear(_PackedLayer, SwitchLinear):
    def __call__(
        self, x: mx.array, indices: mx.array, sorted_indices: bool = False
    ) -> mx.array:
        del sorted_indices
        return self._choose(x, indices)


class PackedQuantizedSwitchLinear(_PackedLayer, QuantizedSwitchLinear):
    def __call__(
        self, x: mx.array, indices: mx.array, sorted_indices: bool = False
    ) -> mx.array:
        del sorted_indices
        return self._choose(x, indices)


def _pack_dense(module: nn.Module, library: Library) -> bool:
    weight = module.get("weight")
    if weight is None or weight.dtype not in _FLOATS:
        return False
    n, k = weight.shape[-2:]
    _become(module, library.pack_dense(weight), library.dense(n, k, _FLOATS[weight.dtype]))
    return True


def _pack_quantized(module: nn.Module, library: Library) -> bool:
    codes, scales, biases = (module.get(name) for name in ("weight", "scales", "biases"))
    mode, group, bits = (getattr(module, name) for name in ("mode", "group_size", "bits"))
    affine = mode == "affine"
    if (
        codes is None
        or scales is None
        or group not in _GROUPS.get(mode, ())
        or getattr(module, "global_scale", None) is not None
        or affine and (biases is None or scales.dtype not in _FLOATS)
    ):
        return False
    n, k = codes.shape[-2], scales.shape[-1] * group
    kind = _FLOATS[scales.dtype] if affine else "bfloat16"
    packed = library.pack_quantized(codes, scales, biases if affine else None, bits, group)
    _become(module, packed, library.quantized(n, k, bits, group, not affine, kind))
    return True


def _become(module: nn.Module, packed: mx.array, holds: Packed) -> None:
    for name in ("weight", "scales", "biases"):
        module.pop(name, None)
    module.__class__ = _CLASSES[type(module)]
    new: Any = module
    new.packed = packed
    new._holds = holds  # noqa: SLF001  this module made it


_CLASSES: dict[type[nn.Module], type[_PackedLayer]] = {
    nn.Linear: PackedLinear,
    nn.Embedding: PackedEmbedding,
    nn.QuantizedLinear: PackedQuantizedLinear,
    nn.QuantizedEmbedding: PackedQuantizedEmbedding,
    SwitchLinear: PackedSwitchLinear,
    QuantizedSwitchLinear: PackedQuantizedSwitchLinear,
}
# A layer of any other class, a subclass included, may do more than multiply: it stays.
_PACKERS = {
    nn.Linear: _pack_dense,
    nn.Embedding: _pack_dense,
    SwitchLinear: _pack_dense,
    nn.QuantizedLinear: _pack_quantized,
    nn.QuantizedEmbedding: _pack_quantized,
    QuantizedSwitchLinear: _pack_quantized,
}
