"""A picture in patches: bands of its rows, each a look of its own (PipeFusion, Li et al. 2024,
arXiv 2405.14430).

A transformer's tokens are words, picture, and what else it is shown: the tokens of reference
images, or padding. A patch is some rows of the picture with as large a share of those others. The
words go with the first patch, which has the fewer rows for it, so that all take about as long.
"""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

Ranges = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Layout:
    """How many tokens of each kind a look has: `rows` of `width` are the picture. `words_last` says
    whether the words are behind them all where they are in one sequence, or before."""

    words: int
    rows: int
    width: int
    others: int = 0
    words_last: bool = False

    @property
    def shown(self) -> int:
        """All tokens but the words."""
        return self.rows * self.width + self.others


@dataclass(frozen=True)
class Patch:
    """The rows [start, end) of a picture: number `index` of `count` patches."""

    index: int
    count: int
    start: int
    end: int

    def fits(self, rows: int) -> bool:
        """Whether a picture of so many rows can have it."""
        return 0 <= self.index < self.count and 0 <= self.start < self.end <= rows

    def rows(self, latents: mx.array, axis: int, rows: int) -> mx.array:
        """What the latents of `rows` rows have of this patch, along that axis."""
        unit = latents.shape[axis] // rows
        return take(latents, [(self.start * unit, self.end * unit)], axis)


def cut(layout: Layout, count: int) -> list[Patch]:
    """As many patches, with about as many tokens each; every one has a row at least.

    Raises:
        ValueError: there are fewer rows than that.
    """
    if not 0 < count <= layout.rows:
        raise ValueError(f"{count} patches of {layout.rows} rows.")
    counted = layout.words + layout.rows * layout.width
    bounds = [0]
    for index in range(1, count):
        even = round((index * counted / count - layout.words) / layout.width)
        bounds.append(min(max(even, bounds[-1] + 1), layout.rows - count + index))
    bounds.append(layout.rows)
    return [Patch(i, count, bounds[i], bounds[i + 1]) for i in range(count)]


@dataclass(frozen=True)
class About:
    """Which look of which step it is; of a patch, if it is of one; or of everything, to `keep` keys
    and values for looks at patches."""

    which: int
    step: int
    keep: bool = False
    patch: Patch | None = None


@dataclass(frozen=True)
class Cut:
    """A patch of a look's tokens."""

    layout: Layout
    patch: Patch

    @property
    def shown(self) -> Ranges:
        """Where its tokens are among those of picture and others."""
        return self._shown(0)

    @property
    def together(self) -> Ranges:
        """Where they are in one sequence of all tokens."""
        words, shown = self.layout.words, self.layout.shown
        if self.layout.words_last:
            return [*self._shown(0), *self._words(shown)]
        return [*self._words(0), *self._shown(words)]

    @property
    def words(self) -> Ranges:
        """Where its words are among the words."""
        return self._words(0)

    def _words(self, offset: int) -> Ranges:
        if self.patch.index == 0:
            return [(offset, offset + self.layout.words)]
        # Where words are apart, mflux's blocks cannot do without any.
        return [] if self.layout.words_last else [(offset, offset + 1)]

    def _shown(self, offset: int) -> Ranges:
        layout, patch = self.layout, self.patch
        behind = offset + layout.rows * layout.width
        first, last = (
            behind + layout.others * index // patch.count
            for index in (patch.index, patch.index + 1)
        )
        picture = (offset + patch.start * layout.width, offset + patch.end * layout.width)
        return [picture, (first, last)] if last > first else [picture]


def take(array: mx.array, ranges: Ranges, axis: int) -> mx.array:
    """These ranges along an axis, put together."""
    axis %= array.ndim
    parts = [array[(*[slice(None)] * axis, slice(start, end))] for start, end in ranges]
    return parts[0] if len(parts) == 1 else mx.concatenate(parts, axis=axis)


def put(whole: mx.array, ranges: Ranges, axis: int, part: mx.array) -> mx.array:
    """The whole, with `part` in place of what `take` takes."""
    axis %= whole.ndim
    before = [slice(None)] * axis
    at, pieces, done = 0, list[mx.array](), 0
    for start, end in ranges:
        if start > done:
            pieces.append(whole[(*before, slice(done, start))])
        pieces.append(part[(*before, slice(at, at + end - start))])
        at, done = at + end - start, end
    if done < whole.shape[axis]:
        pieces.append(whole[(*before, slice(done, None))])
    return pieces[0] if len(pieces) == 1 else mx.concatenate(pieces, axis=axis)
