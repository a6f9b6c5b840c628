"""Modules that do something else than their authors wrote, by another class for the same object."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# mlx's own stubs leave some parameters untyped.

from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten, tree_map

# What a layer is called with, and what it returns.
Call = Callable[..., Any]
Replacement = Callable[[Call, Sequence[Any], dict[str, Any]], Any]


def replace_call(layer: nn.Module, replacement: Replacement) -> None:
    """Have calls of a layer go through a replacement, which gets the layer's own call. All else
    about the layer stays: its attributes, its parameters, the classes that it is of."""
    cls = type(layer)
    own = cast("Call", cls.__call__)

    def call(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return replacement(lambda *a, **k: own(self, *a, **k), args, kwargs)

    layer.__class__ = type(cls.__name__, (cls,), {"__call__": call})


@contextmanager
def as_they_were(layers: Sequence[nn.Module]) -> Generator[None]:
    """Afterwards, the layers are of their own classes again."""
    classes = [type(layer) for layer in layers]
    try:
        yield
    finally:
        for layer, cls in zip(layers, classes, strict=True):
            layer.__class__ = cls


@contextmanager
def weightless(model: nn.Module, layers: Sequence[nn.Module]) -> Generator[dict[str, mx.array]]:
    """Meanwhile, the model has weights that take no memory; gives those outside of the layers by
    name. Afterwards all modules are as they were, also what they keep for themselves."""
    modules = cast("list[nn.Module]", model.modules())
    kept = [(m, type(m), dict(_items(m)), dict(vars(m))) for m in modules]
    weights = cast("dict[str, Any]", model.parameters())
    model.update(tree_map(_stand_in, weights))
    inner = {id(a) for layer in layers for _, a in _flat(layer.parameters())}
    try:
        yield {name: a for name, a in _flat(model.parameters()) if id(a) not in inner}
    finally:
        for module, cls, items, attributes in kept:
            module.__class__ = cls
            module.clear()
            dict.update(module, items)
            vars(module).clear()
            vars(module).update(attributes)
        model.update(weights)


def put_aside(model: nn.Module, own: Sequence[nn.Module], needed: Collection[str]) -> None:
    """Leave only the parameters of `own` modules and those `needed` by name; the others can still
    be asked for, so that a graph can be built that leads through them, but are not read."""
    mine = {id(module) for each in own for module in cast("list[nn.Module]", each.modules())}
    for name, module in cast("list[tuple[str, nn.Module]]", model.named_modules()):
        if id(module) in mine:
            continue
        for key, value in list(_items(module).items()):
            path = f"{name}.{key}" if name else str(key)
            if isinstance(value, mx.array) and path not in needed and not key.startswith("_"):
                if getattr(type(module), "__missing__", None) is not _aside:
                    module.__class__ = _with_aside(type(module))
                del module[key]
                vars(module)[key] = value


def _with_aside(cls: type[nn.Module]) -> type[nn.Module]:
    def contains(self: nn.Module, key: object) -> bool:
        return dict.__contains__(_items(self), key) or key in vars(self)

    def get(self: nn.Module, key: str, default: Any = None) -> Any:
        if key in vars(self):
            return vars(self)[key]
        return dict[str, Any].get(_items(self), key, default)

    methods = {"__missing__": _aside, "__contains__": contains, "get": get}
    return type(cls.__name__, (cls,), methods)


def _aside(self: nn.Module, key: str) -> Any:
    return vars(self)[key]


def _stand_in(array: mx.array) -> mx.array:
    return mx.broadcast_to(mx.zeros((), dtype=array.dtype), array.shape)


def _items(module: nn.Module) -> dict[str, Any]:
    """What a module has as a dict, which it is."""
    return cast("dict[str, Any]", module)


def _flat(parameters: Any) -> list[tuple[str, mx.array]]:
    return cast("list[tuple[str, mx.array]]", tree_flatten(parameters))
