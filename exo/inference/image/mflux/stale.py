"""The keys and values that a rank's blocks had last, for looks at a patch of a picture.

A patch's tokens attend to keys and values of all tokens: their own are new, those of other patches
are as old as the last look at these. mflux's attention modules compute keys and values of the
tokens they are given and call `scaled_dot_product_attention` once, by a name in their module; while
a block is called, that name is a function which puts the others' beside them.
"""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import mlx.core as mx
from mlx import nn

from exo.errors import EngineError, RingError
from exo.inference.image.mflux.family import Family
from exo.inference.image.mflux.patches import Cut, Ranges, put, take

_NAME = "scaled_dot_product_attention"
# In keys and values: (batch, heads, tokens, head).
_TOKENS = 2

Place = tuple[int, str, int]
Attend = Callable[..., mx.array]


class Stale:
    """Keys and values by place: of which look of a step, of which list, of which block."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self._kept: dict[Place, tuple[mx.array, mx.array]] = {}

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for pair in self._kept.values() for array in pair)

    def forget(self) -> None:
        self._kept.clear()

    def call(
        self,
        place: Place,
        block: nn.Module,
        inputs: dict[str, Any],
        cut: Cut | None,
        ranges: Ranges,
    ) -> Any:
        """What the block makes of its inputs: of all tokens, if `cut` is None, or of those that are
        at `ranges` in its sequence. Their keys and values are kept.

        Raises:
            RingError: there are none to go with a patch.
            EngineError: the block attends in some other way.
        """
        calls: list[Place] = []

        def attend(own: Attend, q: mx.array, k: mx.array, v: mx.array, **options: Any) -> mx.array:
            calls.append(place)
            if cut is not None:
                old_k, old_v = self._of(place)
                k, v = put(old_k, ranges, _TOKENS, k), put(old_v, ranges, _TOKENS, v)
            self._kept[place] = k, v
            return own(q, k, v, **options)

        with _attending(self._family.attention, attend):
            result = cast("Any", block)(**inputs)
        if len(calls) != 1:
            raise EngineError(f"A block of this model attends {len(calls)} times, not once.")
        return result

    def _of(self, place: Place) -> tuple[mx.array, mx.array]:
        if place not in self._kept:
            raise RingError("A patch of a picture came that was not looked at as a whole.")
        return self._kept[place]


@contextmanager
def _attending(module: Any, attend: Attend) -> Generator[None]:
    own = getattr(module, _NAME)
    setattr(module, _NAME, partial(attend, own))
    try:
        yield
    finally:
        setattr(module, _NAME, own)


@dataclass(frozen=True)
class View:
    """One look that keeps keys and values: at everything, or at what `cut` says."""

    stale: Stale
    family: Family
    which: int
    cut: Cut | None = None

    def narrow(self, given: Sequence[mx.array], *, refining: bool = False) -> list[mx.array]:
        """Of the tensors that go into the first block, what a patch has of them: words and
        picture, or both in one."""
        if self.cut is None:
            return [*given]
        if len(given) == 2:
            return [take(given[0], self.cut.words, 1), take(given[1], self.cut.shown, 1)]
        return [take(given[0], self._ranges(refining=refining), 1)]

    def widen(self, given: Sequence[mx.array], *, refining: bool = False) -> list[mx.array]:
        """What comes out of the last block, in its place among zeros, so that what follows has the
        shapes it expects. Words stay narrow: what follows knows how many there were."""
        if self.cut is None:
            return [*given]
        layout, ranges = self.cut.layout, self.cut.shown
        *apart, last = given
        words = 0 if apart or refining else sum(end - start for start, end in self.cut.words)
        count = last.shape[1] - words
        begin = 0 if layout.words_last else words
        whole = mx.zeros((last.shape[0], layout.shown, last.shape[2]), dtype=last.dtype)
        shown = put(whole, ranges, 1, last[:, begin : begin + count])
        if not words:
            return [*apart, shown]
        rest = last[:, count:] if layout.words_last else last[:, :words]
        both = [shown, rest] if layout.words_last else [rest, shown]
        return [*apart, mx.concatenate(both, axis=1)]

    def call(self, name: str, index: int, block: nn.Module, inputs: dict[str, Any]) -> Any:
        """The block, at inputs that are narrow already but for the positions."""
        place = (self.which, name, index)
        if self.cut is None:
            return self.stale.call(place, block, inputs, None, ())
        refining = name == "refiner"
        ranges = self._ranges(refining=refining)
        inputs = self.family.cut_inputs(inputs, self.cut, refining=refining)
        return self.stale.call(place, block, inputs, self.cut, ranges)

    def _ranges(self, *, refining: bool) -> Ranges:
        """Of keys, which are in one sequence but for those of a refiner, which has no words."""
        assert self.cut is not None  # noqa: S101  asked of cuts alone
        return self.cut.shown if refining else self.cut.together
