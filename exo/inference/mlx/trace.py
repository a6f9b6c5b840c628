"""What a model's own code does with its layers, learned from a forward pass that nobody evaluates.

No weights are read: the pass only builds a graph. What is recorded is in which order the layers are
called, which caches each of them is given, and what each returns.
"""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import mlx.core as mx
from mlx import nn

from exo.errors import ModelInvalid
from exo.inference.mlx.adapter import Cache, CacheList, make_prompt_cache

# What a layer is called with, and what it returns.
Call = Callable[..., Any]
Replacement = Callable[[Call, Sequence[Any], dict[str, Any]], Any]
_TOKENS = 2


@dataclass
class Trace:
    """`users` has, for each cache of the whole model, the layers that are given it; `returns` what
    each layer returned; `needs` the outputs of which earlier layers each was given."""

    n_layers: int
    users: list[set[int]]
    returns: list[Any] = field(default_factory=list[Any])
    needs: list[set[int]] = field(default_factory=list[set[int]])

    @property
    def valid_cuts(self) -> frozenset[int]:
        """Where the list of layers may be cut: c parts [0, c) from [c, n)."""
        return frozenset(cut for cut in range(1, self.n_layers) if self._is_valid(cut))

    def _is_valid(self, cut: int) -> bool:
        if any(users and min(users) < cut <= max(users) for users in self.users):
            return False  # Keys and values would have to travel.
        travelling = {id(array) for array in arrays_in(self.returns[cut - 1])}
        for layer in range(cut, self.n_layers):
            for earlier in self.needs[layer]:
                given = {id(array) for array in arrays_in(self.returns[earlier])}
                if earlier < cut - 1 and not given & travelling:
                    return False
        return True


def replace_calls(layers: Sequence[nn.Module], replacements: Sequence[Replacement]) -> None:
    """Have calls of each layer go through its replacement, which gets the layer's own call. All
    else about a layer stays: its attributes, its parameters, the classes that it is of."""
    for layer, replacement in zip(layers, replacements, strict=True):
        layer.__class__ = _replaced(type(layer), replacement)


def _replaced(cls: type[nn.Module], replacement: Replacement) -> type[nn.Module]:
    def call(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        own = cast("Call", cls.__call__)
        return replacement(lambda *a, **k: own(self, *a, **k), args, kwargs)

    return type(cls.__name__, (cls,), {"__call__": call})


def trace(model: nn.Module) -> Trace:
    """Run the model on two tokens, and note what its layers do.

    Raises:
        ModelInvalid: its layers are not called one after the other, each once.
    """
    layers = layers_of(model)
    classes = [type(layer) for layer in layers]
    caches = make_prompt_cache(model)
    recorder = _Recorder(Trace(len(layers), [set() for _ in caches]), caches)
    replace_calls(layers, [recorder.at(index) for index in range(len(layers))])
    try:
        cast("Call", model)(mx.zeros((1, _TOKENS), dtype=mx.int32), cache=caches)
    finally:
        for layer, cls in zip(layers, classes, strict=True):
            layer.__class__ = cls
    if recorder.order != list(range(len(layers))):
        how = "more than once" if len(recorder.order) > len(layers) else "not one after the other"
        raise ModelInvalid(
            f"A model of this architecture ({kind_of(model)}) cannot be split over nodes: its "
            f"layers are computed {how}.",
            hint="Place it on one node.",
        )
    return recorder.trace


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The list of layers.

    Raises:
        ModelInvalid: the model has none.
    """
    layers = getattr(model, "layers", None)
    if not isinstance(layers, list) or not layers:
        raise ModelInvalid(
            f"A model of this architecture ({kind_of(model)}) has no list of layers."
        )
    return cast("list[nn.Module]", layers)


def kind_of(model: nn.Module) -> str:
    return str(getattr(model, "model_type", type(model).__module__))


class _Recorder:
    def __init__(self, trace: Trace, caches: Sequence[Cache]) -> None:
        self.trace = trace
        self.order: list[int] = []
        self._caches: dict[int, int] = {}
        self._outputs: dict[int, int] = {}
        for index, cache in enumerate(caches):
            parts = cache.caches if isinstance(cache, CacheList) else ()
            self._caches |= {id(each): index for each in (cache, *parts)}

    def at(self, index: int) -> Replacement:
        def record(own: Call, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
            self.order.append(index)
            given = [*args, *kwargs.values()]
            for value in given:
                if id(value) in self._caches:
                    self.trace.users[self._caches[id(value)]].add(index)
            arrays = list(arrays_in(given))
            self.trace.needs.append(
                {self._outputs[id(a)] for a in arrays if id(a) in self._outputs}
            )
            result = own(*args, **kwargs)
            self.trace.returns.append(result)
            # The latest layer that returned an array counts.
            self._outputs |= {id(array): index for array in arrays_in(result)}
            return result

        return record


def arrays_in(value: Any) -> Iterator[mx.array]:
    """The arrays in nested tuples, lists and dicts, in order."""
    if isinstance(value, mx.array):
        yield value
    elif isinstance(value, tuple | list):
        for each in cast("Sequence[Any]", value):
            yield from arrays_in(each)
    elif isinstance(value, dict):
        for each in cast("dict[str, Any]", value).values():
            yield from arrays_in(each)


def rebuilt(like: Any, arrays: Iterator[mx.array]) -> Any:
    """A value of the same shape with other arrays in it."""
    if isinstance(like, mx.array):
        return next(arrays)
    if isinstance(like, tuple | list):
        parts = [rebuilt(each, arrays) for each in cast("Sequence[Any]", like)]
        return tuple(parts) if isinstance(like, tuple) else parts
    if isinstance(like, dict):
        items = cast("dict[str, Any]", like).items()
        return {name: rebuilt(each, arrays) for name, each in items}
    return like
