"""A picture's steps where patches of it are computed by all ranks at once (PipeFusion, see
`patches`): what comes of it is near to the picture of one node, not equal.

The first steps are looks at the whole picture, as ever; the last of them keeps keys and values.
Then a patch begins its next step as soon as it has come back from the one before, while the ranks
are busy with the others: no step waits for all of the last one.
"""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

import math
from collections.abc import Callable, Generator
from contextlib import suppress

import mlx.core as mx

from exo.errors import RingError
from exo.inference.image.mflux.family import Family, Work
from exo.inference.image.mflux.patches import Patch, cut
from exo.inference.image.mflux.ranks import Head

# The part of the steps that are looks at the whole picture where nothing is said.
_WHOLE = 0.2

# Some of the arrays that are like latents, as far as they are of a patch; or all of them.
Rows = Callable[[mx.array], mx.array]
# What comes of a step: of the latents before it and what was seen in them, the latents after it
# and what they show. Each may be a patch of all.
Advance = Callable[[int, mx.array, mx.array, Rows], tuple[mx.array, mx.array]]


def whole_steps(steps: int, asked: int | None) -> int:
    """How many of a picture's steps are looks at all of it: one at least."""
    return min(steps, asked or math.ceil(steps * _WHOLE))


class Pipeline:
    """One picture in `count` patches, of which the ranks compute several at once."""

    def __init__(self, family: Family, head: Head, work: Work, count: int) -> None:
        self._family = family
        self._head = head
        self._work = work
        self._rows = work.asked.height // 16
        self._patches = cut(family.layout(0, work.encoded, work.asked), count)

    def steps(
        self, first: int, steps: int, latents: mx.array, advance: Advance
    ) -> Generator[mx.array]:
        """What the picture shows after each of the steps from `first` on. Before it, a step kept
        keys and values.

        Raises:
            RingError: the ring is gone.
        """
        parts = [self._of(patch)(latents) for patch in self._patches]
        for patch in self._patches:
            self._head.begin(self._work, first, patch, latents)
        for step in range(first, steps):
            shown = list[mx.array]()
            for index, patch in enumerate(self._patches):
                parts[index], seen = self._advance(step, patch, parts[index], latents, advance)
                shown.append(seen)
                if step + 1 < steps:
                    whole = mx.concatenate(parts, axis=self._family.row_axis)
                    self._head.begin(self._work, step + 1, patch, whole)
            yield mx.concatenate(shown, axis=self._family.row_axis)

    def close(self) -> None:
        """Leave nothing on its way or kept, also where the picture is given up."""
        # A ring that is gone has neither.
        with suppress(RingError):
            self._head.forget()

    def _advance(
        self, step: int, patch: Patch, part: mx.array, like: mx.array, advance: Advance
    ) -> tuple[mx.array, mx.array]:
        rows = self._of(patch)
        seen = [rows(each) for each in self._head.finish(self._work, step, patch, like)]
        velocity = self._family.guide(seen, self._work.schedule)
        found = advance(step, part, velocity, rows)
        mx.eval(*found)
        return found

    def _of(self, patch: Patch) -> Rows:
        return lambda array: patch.rows(array, self._family.row_axis, self._rows)
