"""What a model's own code does with its layers, learned from forward passes that nobody evaluates.

The weights are put aside for it, so none is read: each pass only builds a graph. Whatever a layer
leaves is replaced by a marker, and from the graph it is seen where each marker is used, which is
what has to travel if the two are on different nodes; and for which layers the weights outside of
the layers (the embedding, the head) are needed.
"""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import mlx.core as mx
from mlx import nn

from exo.errors import ModelInvalid
from exo.inference.mlx.adapter import Cache, make_prompt_cache
from exo.inference.mlx.exchange import (
    Path,
    Reads,
    arguments,
    arrays_in,
    build,
    form_of,
    is_written_to,
    write,
)
from exo.inference.mlx.graph import Graph
from exo.inference.mlx.plan import Leaf, Shapes, SplitPlan, kind_of
from exo.inference.mlx.replaced import Call, Replacement, as_they_were, replace_call, weightless
from exo.inference.mlx.watching import Watch

# Sequences, and the tokens of each pass over them. No two of these numbers, nor of their sums, are
# equal, so that it can be told what a size follows.
_RUNS = ((2, (33, 5, 1)), (3, (38, 7, 1)))
# The pass of each run at which sizes are compared.
_COMPARED = 1


def trace(model: nn.Module) -> SplitPlan:
    """How a model can be split.

    Raises:
        ModelInvalid: its layers are not called one after the other, each once.
    """
    layers = layers_of(model)
    found = _Found(SplitPlan(kind_of(model), len(layers)))
    with weightless(model, layers) as outer, as_they_were(layers):
        for index, layer in enumerate(layers):
            replace_call(layer, _tracer(found, index))
        for rows, lengths in _RUNS:
            caches = make_prompt_cache(model)
            found.watch = Watch(caches)
            for number, length in enumerate(lengths):
                found.current = _Pass(found, outer, (rows, length), number == _COMPARED)
                tokens = mx.zeros((rows, length), dtype=mx.int32)
                logits = cast("Call", model)(tokens, cache=caches)
                found.current.finish(logits, caches)
            found.plan.watched |= found.watch.read
            found.plan.kept |= found.watch.written - set(found.plan.users)
    return found.plan


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


@dataclass
class _Found:
    """What is known so far."""

    plan: SplitPlan
    shapes: Shapes = field(default_factory=Shapes)
    watch: Watch = field(default_factory=lambda: Watch([]))
    current: Any = None


def _tracer(found: _Found, index: int) -> Replacement:
    def traced(own: Call, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        return cast("_Pass", found.current).call(index, own, args, kwargs)

    return traced


class _Pass:
    """One forward pass."""

    def __init__(
        self, found: _Found, outer: dict[str, mx.array], size: tuple[int, int], compared: bool
    ) -> None:
        self._found = found
        self._plan = found.plan
        self._outer = outer
        self._size = size
        self._compared = compared
        self._order: list[int] = []
        self._markers: dict[str, mx.array] = {}
        self._leaves: dict[str, Leaf] = {}
        self._handed: dict[int, str] = {}
        self._nothing: dict[tuple[int, Any], Leaf] = {}
        # What the graph is to be asked about: arrays, and the layers that use them.
        self._used: dict[str, tuple[int, mx.array]] = {}
        self._alive: list[Any] = []

    def call(self, index: int, own: Call, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Record one call of a layer; what it leaves is replaced by markers."""
        self._order.append(index)
        before = arguments(args, kwargs)
        given = {n: Reads(v) if _is_dict(v) else v for n, v in before.items()}
        self._take(index, given)
        contents = {name: dict(arrays_in(v)) for name, v in given.items() if is_written_to(v)}
        numbered = [given[n] for n in range(len(args))]
        with self._found.watch.paused():
            result = own(*numbered, **{name: given[name] for name in kwargs})
        form = self._form(result, given)
        for _, value in arrays_in(result):
            self._use(index, value)
        for name, old in contents.items():
            self._note_written(index, name, before[name], given[name], old)
        while len(self._plan.forms) <= index:
            self._plan.forms.append(None)
        self._plan.forms[index] = form
        values: dict[Path, mx.array] = {(None, *path): a for path, a in arrays_in(result)}
        return build(form, lambda path: self._mark(index, path, values[path]), before)

    def _form(self, result: Any, given: dict[str | int, Any]) -> Any:
        try:
            return form_of(result, given)
        except TypeError as error:
            raise self._plan.refusal(f"they return objects of their own ({error})") from error

    def _take(self, index: int, given: dict[str | int, Any]) -> None:
        """Note the arrays and caches that a layer is given."""
        for value in given.values():
            number = self._found.watch.number(value)
            if number is not None:
                self._plan.users.setdefault(number, set()).add(index)
            elif not isinstance(value, Reads):
                for _, array in arrays_in(value):
                    self._use(index, array)
        if index == 0:
            # Now, since some models' layers evaluate what they are given.
            self._ask()

    def _note_written(
        self, index: int, name: str | int, into: Any, given: Any, old: dict[Path, mx.array]
    ) -> None:
        """What a layer wrote into an argument becomes a marker there."""
        if isinstance(given, Reads):
            self._note_read(index, into, given)
            into.clear()
            into.update(given)
            for key, value in given.items():
                if value is None and given.first.get(key, 0) is not None:
                    self._nothing[id(into), key] = Leaf(index, (name, key))
                    self._found.shapes.unknown(Leaf(index, (name, key)))
        for path, array in list(arrays_in(into)):
            if old.get(path) is not array:
                self._use(index, array)
                write(into, path, self._mark(index, (name, *path), array))

    def _note_read(self, index: int, of: Any, given: Reads) -> None:
        for key in given.read:
            for _, array in arrays_in(given.first[key]):
                self._use(index, array)
            leaf = self._nothing.get((id(of), key))
            if given.first[key] is None and leaf is not None:
                self._plan.use(leaf, index)

    def _use(self, index: int, array: mx.array) -> None:
        leaf = self._handed.get(id(array))
        if leaf is not None:
            self._plan.use(self._leaves[leaf], index)
        self._used[f"u{len(self._alive)}"] = (index, array)
        self._alive.append(array)

    def _mark(self, index: int, path: Path, array: mx.array) -> mx.array:
        """A marker in the place of an array. The model gets a copy: it may change it in place."""
        leaf = Leaf(index, path)
        if self._compared:
            self._found.shapes.add(leaf, self._size, array)
            self._plan.shapes[leaf] = self._found.shapes.of(leaf)
        marker = mx.zeros(array.shape, dtype=array.dtype)
        copy = mx.stop_gradient(marker)
        name = f"m{len(self._markers)}"
        self._markers[name] = marker
        self._leaves[name] = leaf
        self._handed[id(copy)] = name
        self._alive.append(copy)
        return copy

    def finish(self, logits: mx.array, caches: Sequence[Cache]) -> None:
        """Raises:
        ModelInvalid: the layers were not called one after the other, each once.
        """
        n_layers = self._plan.n_layers
        if self._order != list(range(n_layers)):
            many = len(self._order) > n_layers
            raise self._plan.refusal(
                "they are computed more than once" if many else "it computes them in parts"
            )
        self._use(n_layers, logits)
        with self._found.watch.paused():
            states = {
                f"s{number}_{at}": array
                for number, cache in enumerate(caches)
                if number in self._plan.users
                for at, array in enumerate(_state_of(cache))
            }
        self._ask(states)

    def _ask(self, states: dict[str, mx.array] | None = None) -> None:
        states = states or {}
        outer = {f"w{at}": name for at, name in enumerate(self._outer)}
        named = {w: self._outer[name] for w, name in outer.items()}
        graph = Graph(
            {name: array for name, (_, array) in self._used.items()},
            {**self._markers, **named, **states},
        )
        known = {*self._markers, *outer, *states}
        for end, (index, _) in self._used.items():
            for origin in graph.origins(end, known, {*self._markers, *states}):
                if origin in outer:
                    self._plan.need(outer[origin], index)
                elif origin in states:
                    self._plan.users[int(origin[1:].split("_")[0])].add(index)
                elif self._leaves[origin].layer < index:
                    self._plan.use(self._leaves[origin], index)
        self._used.clear()


def _is_dict(value: object) -> bool:
    return type(value) is dict


def _state_of(cache: Cache) -> list[mx.array]:
    found: list[mx.array] = []
    left: list[Any] = [cache.state]
    while left:
        value = left.pop()
        if isinstance(value, mx.array):
            found.append(value)
        elif isinstance(value, tuple | list):
            left.extend(cast("Sequence[Any]", value))
    return found
