"""A model's layers with their weights packed for the kernels.

Each is the model's own layer with another class, a subclass of what it was: names, attributes and
`isinstance` stay as the model's code expects them.
"""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

from collections.abc import Callable
from typing import Any, ClassVar, cast

import mlx.core as mx
from mlx import nn
from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchLinear

from exo.inference.kernels.library import Library, Packed

_FLOATS = {mx.float32: "float32", mx.bfloat16: "bfloat16", mx.float16: "float16"}
# Groups that each mode may have.
_GROUPS = {"affine": (32, 64, 128), "mxfp4": (32,), "mxfp8": (32,), "nvfp4": (16,)}


def swap(model: nn.Module, library: Library) -> int:
    """Replace the layers of a model that the kernels know by ones that use them; returns how many.

    Lazy: weights are packed when they are evaluated, and what they were packed from is freed.
    """
    _PackedLayer.library = library
    count = 0
    for module in cast("list[nn.Module]", model.modules()):
        pack = _PACKERS.get(type(module))
        count += pack is not None and pack(module, library)
    return count


class _PackedLayer(nn.Module):
    """`packed` holds what `weight` (and scales and biases) did."""

    library: ClassVar[Library]
    packed: mx.array
    _holds: Packed
    _rows: int

    def _product(self, x: mx.array) -> mx.array:
        return self.library.matmul(x, self.packed, self._holds)

    def _with_bias(self, y: mx.array) -> mx.array:
        bias = _array(self, "bias")
        return y if bias is None else y + bias


class _Multiplies(_PackedLayer):
    def __call__(self, x: mx.array) -> mx.array:
        return self._with_bias(self._product(x))


class _Sums(_PackedLayer):
    """Has a part of the columns, so that the products of all nodes are to be summed."""

    def __call__(self, x: mx.array) -> mx.array:
        group = cast("mx.distributed.Group", cast("Any", self).group)
        return self._with_bias(mx.distributed.all_sum(self._product(x), group=group))


class _Chooses(_PackedLayer):
    """Has a matrix for each expert."""

    def __call__(self, x: mx.array, indices: mx.array, sorted_indices: bool = False) -> mx.array:
        del sorted_indices
        y = self.library.gather_matmul(x, self.packed, indices, self._holds)
        bias = _array(self, "bias")
        return y if bias is None else y + mx.expand_dims(bias[indices], -2)


class _Table(_PackedLayer):
    def __call__(self, x: mx.array) -> mx.array:
        return self.library.take_rows(self.packed, x, self._holds)

    def as_linear(self, x: mx.array) -> mx.array:
        return self._product(x)


class _Numbers(_PackedLayer):
    stock: ClassVar[type[nn.Module]]

    @property
    def weight(self) -> mx.array:
        """(n, k), float32: some models do more with a weight than multiply by it."""
        return self.library.take_rows(self.packed, mx.arange(self._rows), self._holds)

    @weight.deleter
    def weight(self) -> None:
        """A model that puts another weight here gets its own layer back for it."""
        layer = cast("nn.Module", self)
        layer.__class__ = self.stock
        cast("dict[str, Any]", layer).pop("packed")


class PackedLinear(_Multiplies, _Numbers, nn.Linear):
    stock = nn.Linear


class PackedQuantizedLinear(_Multiplies, nn.QuantizedLinear): ...


class PackedAllToSharded(_Multiplies, nn.AllToShardedLinear): ...


class PackedQuantizedAllToSharded(_Multiplies, nn.QuantizedAllToShardedLinear): ...


class PackedShardedToAll(_Sums, nn.ShardedToAllLinear): ...


class PackedQuantizedShardedToAll(_Sums, nn.QuantizedShardedToAllLinear): ...


class PackedEmbedding(_Table, _Numbers, nn.Embedding):
    stock = nn.Embedding


class PackedQuantizedEmbedding(_Table, nn.QuantizedEmbedding): ...


class PackedSwitchLinear(_Chooses, SwitchLinear): ...


class PackedQuantizedSwitchLinear(_Chooses, QuantizedSwitchLinear): ...


def _pack_dense(module: nn.Module, library: Library) -> bool:
    weight = _array(module, "weight")
    if weight is None or weight.dtype not in _FLOATS:
        return False
    n, k = weight.shape[-2:]
    _become(module, library.pack_dense(weight), library.dense(n, k, _FLOATS[weight.dtype]), n)
    return True


def _pack_quantized(module: nn.Module, library: Library) -> bool:
    codes, scales, biases = (_array(module, name) for name in ("weight", "scales", "biases"))
    quantized: Any = module
    mode, group, bits = str(quantized.mode), int(quantized.group_size), int(quantized.bits)
    if codes is None or scales is None or group not in _GROUPS.get(mode, ()):
        return False
    affine = mode == "affine"
    if affine and (biases is None or scales.dtype not in _FLOATS):
        return False
    if getattr(module, "global_scale", None) is not None:
        return False
    n, k = codes.shape[-2], scales.shape[-1] * group
    if mode == "mxfp8":
        # e4m3 numbers span more than the kernels' integers. bfloat16 holds each times its scale.
        weight = mx.dequantize(codes, scales, group_size=group, bits=bits, mode=mode)
        weight = weight.astype(mx.bfloat16)
        _become(module, library.pack_dense(weight), library.dense(n, k, "bfloat16"), n)
        return True
    kind = _FLOATS[scales.dtype] if affine else "bfloat16"
    packed = library.pack_quantized(codes, scales, biases if affine else None, bits, group)
    _become(module, packed, library.quantized(n, k, bits, group, not affine, kind), n)
    return True


def _array(module: nn.Module, name: str) -> mx.array | None:
    value = cast("dict[str, Any]", module).get(name)
    return value if isinstance(value, mx.array) else None


def _become(module: nn.Module, packed: mx.array, holds: Packed, rows: int) -> None:
    for name in ("weight", "scales", "biases"):
        module.pop(name, None)
    module.__class__ = _CLASSES[type(module)]
    new: Any = module
    new.packed = packed
    new._holds, new._rows = holds, rows  # noqa: SLF001  this file has made its class


_CLASSES: dict[type[nn.Module], type[_PackedLayer]] = {
    nn.Linear: PackedLinear,
    nn.Embedding: PackedEmbedding,
    nn.QuantizedLinear: PackedQuantizedLinear,
    nn.QuantizedEmbedding: PackedQuantizedEmbedding,
    SwitchLinear: PackedSwitchLinear,
    QuantizedSwitchLinear: PackedQuantizedSwitchLinear,
    nn.AllToShardedLinear: PackedAllToSharded,
    nn.QuantizedAllToShardedLinear: PackedQuantizedAllToSharded,
    nn.ShardedToAllLinear: PackedShardedToAll,
    nn.QuantizedShardedToAllLinear: PackedQuantizedShardedToAll,
}
# A layer of any other class, a subclass included, may do more than multiply: it stays.
_PACKERS: dict[type[nn.Module], Callable[[nn.Module, Library], bool]] = {
    nn.Linear: _pack_dense,
    nn.Embedding: _pack_dense,
    SwitchLinear: _pack_dense,
    nn.QuantizedLinear: _pack_quantized,
    nn.QuantizedEmbedding: _pack_quantized,
    QuantizedSwitchLinear: _pack_quantized,
    nn.AllToShardedLinear: _pack_dense,
    nn.QuantizedAllToShardedLinear: _pack_quantized,
    nn.ShardedToAllLinear: _pack_dense,
    nn.QuantizedShardedToAllLinear: _pack_quantized,
}
