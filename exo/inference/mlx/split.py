"""Some of a model's layers, for any architecture whose layers are called one after the other.

The model's own code runs on every rank, with a list of layers of full length. A layer of another
rank computes nothing: those before this rank's own return what came over the ring, those after
them what is to be sent. So masks, positions, indices and everything that is done between the layers
stay as the model's authors wrote them, and since MLX is lazy, what only such layers would need
(the embedding, the head) is never computed, nor read from disk.

A model's code also looks at caches of layers that are elsewhere, to know the position or to make a
mask. In their place it finds the cache of a layer of the same kind that is here, or a shadow: a
cache one number wide, that only counts.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# mlx's own stubs leave some parameters untyped.

from collections.abc import Sequence
from typing import Any, cast

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_map

from exo.errors import ModelInvalid, RingError
from exo.inference.mlx.adapter import Cache, CacheList, make_prompt_cache
from exo.inference.mlx.trace import (
    Call,
    Replacement,
    Trace,
    arrays_in,
    kind_of,
    layers_of,
    rebuilt,
    replace_calls,
)


class SplitStage:
    """Layers [start, end) of a model: a `Stage`. The model is changed for it, for good.

    Raises:
        ModelInvalid: the layers cannot be cut there.
    """

    def __init__(self, model: nn.Module, plan: Trace, start: int, end: int) -> None:
        cuts = {0, plan.n_layers, *plan.valid_cuts}
        if not {start, end} <= cuts or start >= end:
            raise ModelInvalid(
                f"A model of this architecture ({kind_of(model)}) cannot be cut into layers "
                f"{start}-{end}.",
                hint=f"Its layers may be cut before {_text(plan.valid_cuts)}.",
            )
        self.model = model
        self.last = end == plan.n_layers
        self._came_as = plan.returns[start - 1] if start else None
        self._expects = len(list(arrays_in(self._came_as)))
        self._came: list[mx.array] = []
        self._leaving: Any = None
        self._places = _Places(make_prompt_cache(model), plan.users, start, end)
        layers = layers_of(model)
        for index, layer in enumerate(layers):
            if not start <= index < end:
                # The names stay, the weights go.
                layer.update(tree_map(_nothing, layer.parameters()))
        replace_calls(layers, [self._role(index, start, end) for index in range(len(layers))])

    def make_cache(self) -> list[Cache]:
        return self._places.of(make_prompt_cache(self.model))

    def __call__(
        self, tokens: mx.array, inputs: Sequence[mx.array], cache: list[Cache]
    ) -> list[mx.array]:
        if len(inputs) != self._expects:
            raise RingError(f"{len(inputs)} tensors came where {self._expects} were due.")
        self._came = list(inputs)
        logits = cast("Call", self.model)(tokens, cache=self._places.everywhere(cache))
        self._places.advance(cache, tokens)
        leaving, self._leaving, self._came = self._leaving, None, []
        return [cast("mx.array", logits)] if self.last else list(arrays_in(leaving))

    def _role(self, index: int, start: int, end: int) -> Replacement:
        def come(own: Call, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
            del own, args, kwargs
            return rebuilt(self._came_as, iter(_copies(self._came)))

        def compute(own: Call, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
            return own(*args, **kwargs)

        def leave(own: Call, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
            result = own(*args, **kwargs)
            # The model may go on to change the arrays that it got.
            self._leaving = rebuilt(result, iter(_copies(arrays_in(result))))
            return result

        def follow(own: Call, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
            del own, args, kwargs
            return rebuilt(self._leaving, iter(_copies(arrays_in(self._leaving))))

        if index < start:
            return come
        if index >= end:
            return follow
        return leave if index == end - 1 and not self.last else compute


class _Places:
    """Which caches a stage has, and where in the whole model's list they stand.

    `of` picks those of the stage's own layers, and a shadow for each kind of which no layer is
    here; `everywhere` is the list that the model's code is given.
    """

    def __init__(
        self, caches: Sequence[Cache], users: Sequence[set[int]], start: int, end: int
    ) -> None:
        own = set(range(start, end))
        kinds = [_kind(cache) for cache in caches]
        # What no layer is given belongs to the model's own code, which runs everywhere.
        self._own = [at for at, who in enumerate(users) if who & own or not who]
        here = {kinds[at]: number for number, at in reversed(list(enumerate(self._own)))}
        self._shadows: list[int] = []
        self._place: list[int] = []
        for at, kind in enumerate(kinds):
            if at in self._own:
                self._place.append(self._own.index(at))
                continue
            if kind not in here:
                here[kind] = len(self._own) + len(self._shadows)
                self._shadows.append(at)
            self._place.append(here[kind])

    def of(self, caches: Sequence[Cache]) -> list[Cache]:
        return [caches[at] for at in (*self._own, *self._shadows)]

    def everywhere(self, cache: Sequence[Cache]) -> list[Cache]:
        return [cache[place] for place in self._place]

    def advance(self, cache: Sequence[Cache], tokens: mx.array) -> None:
        """Let the shadows count the tokens."""
        for shadow in cache[len(self._own) :]:
            _count(shadow, tokens)


def _count(shadow: Cache, tokens: mx.array) -> None:
    if isinstance(shadow, CacheList):
        for part in shadow.caches:
            _count(part, tokens)
    elif hasattr(shadow, "update_and_fetch"):
        rows, length = tokens.shape
        nothing = mx.zeros((rows, 1, length, 1))
        cast("Any", shadow).update_and_fetch(nothing, nothing)


def _nothing(array: mx.array) -> mx.array:
    del array
    return mx.zeros((0,))


def _kind(cache: Cache) -> tuple[object, ...]:
    """What two caches have in common that are always at the same position, with the same mask."""
    if isinstance(cache, CacheList):
        return (type(cache), *(_kind(part) for part in cache.caches))
    return (type(cache), *(getattr(cache, name, None) for name in ("max_size", "chunk_size")))


def _copies(arrays: Any) -> list[mx.array]:
    """The same values as other objects: what is done to one in place leaves the others alone."""
    return [mx.stop_gradient(array) for array in arrays]


def _text(cuts: frozenset[int]) -> str:
    return ", ".join(map(str, sorted(cuts))) or "no layer"
