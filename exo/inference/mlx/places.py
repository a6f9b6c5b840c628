"""Which caches a stage has, and where in the whole model's list of caches they stand."""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

from collections.abc import Sequence
from typing import Any, cast

import mlx.core as mx

from exo.inference.mlx.adapter import Cache, CacheList
from exo.inference.mlx.plan import SplitPlan


class Places:
    """A stage has the caches of its own layers, those that the code outside of the layers writes,
    and a shadow of each kind that this code only looks at, if none of its layers has one.

    A shadow holds one number per position, so that it counts positions, and pads, as the others do.
    """

    def __init__(self, caches: Sequence[Cache], plan: SplitPlan, start: int, end: int) -> None:
        own = set(range(start, end)) | ({end} if end == plan.n_layers else set[int]())
        kinds = [_kind(cache) for cache in caches]
        numbers = range(len(caches))
        self._own = [at for at in numbers if at in plan.kept or plan.users.get(at, set()) & own]
        here = {kinds[at]: place for place, at in reversed(list(enumerate(self._own)))}
        self._shadows: list[int] = []
        for at in sorted(plan.watched):
            if kinds[at] not in here:
                here[kinds[at]] = len(self._own) + len(self._shadows)
                self._shadows.append(at)
        self._places = [
            self._own.index(at) if at in self._own else here.get(kinds[at]) for at in numbers
        ]

    def of(self, caches: Sequence[Cache]) -> tuple[list[Cache], list[Cache]]:
        """The stage's among the whole model's: its own, and the shadows, which come after them."""
        return [caches[at] for at in self._own], [caches[at] for at in self._shadows]

    def everywhere(self, caches: Sequence[Cache]) -> list[Cache | None]:
        """The whole model's list. A cache of another stage is stood for by one of its kind."""
        return [None if place is None else caches[place] for place in self._places]

    def advance(self, caches: Sequence[Cache], tokens: mx.array) -> None:
        """Let the shadows count the tokens (B, L)."""
        for shadow in caches[len(self._own) :]:
            _count(shadow, tokens)


def _count(shadow: Cache, tokens: mx.array) -> None:
    rows, length = tokens.shape
    if isinstance(shadow, CacheList):
        for part in shadow.caches:
            _count(part, tokens)
    elif hasattr(shadow, "update_and_fetch"):
        nothing = mx.zeros((rows, 1, length, 1))
        cast("Any", shadow).update_and_fetch(nothing, nothing)
    else:
        _count_state(cast("Any", shadow), rows, length)


def _count_state(shadow: Any, rows: int, length: int) -> None:
    """A recurrent state has no positions. One that is empty cannot be taken out of a batch."""
    for at, array in enumerate(shadow.cache):
        if array is None:
            shadow[at] = mx.zeros((rows, 1))
    shadow.advance(length)


def _kind(cache: Cache) -> tuple[object, ...]:
    """What caches have in common that count alike and make the same mask."""
    if isinstance(cache, CacheList):
        return (type(cache), *(_kind(part) for part in cache.caches))
    settings = {n: v for n, v in vars(cache).items() if isinstance(v, int | float | str)}
    return (type(cache), *sorted(settings.items()))
