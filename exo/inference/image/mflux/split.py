"""Some of a transformer's blocks on this node, the others elsewhere.

Every rank runs the transformer's own code, with stand-ins for the blocks of other ranks: what
happens between blocks stays as mflux's authors wrote it. A stand-in hands on what it gets, and
since MLX computes what is asked for and nothing else, what comes before and after a rank's blocks
costs it nothing, and the weights of other blocks are never read.

What travels between two blocks is one tensor, or two where words and picture are apart.
"""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

from collections.abc import Sequence
from typing import Any, cast

import mlx.core as mx
from mlx import nn

from exo.errors import EngineError, RingError
from exo.inference.image.mflux.family import Family, Work

Tensors = Sequence[mx.array]


class Stage:
    """The blocks [start, end) of a model, counted over all of its lists; those of other ranks are
    taken out of it."""

    def __init__(self, family: Family, start: int, end: int) -> None:
        self._family = family
        self._came: Tensors | None = None
        self._left: Tensors = ()
        lists = family.blocks()
        self._total = sum(len(blocks) for blocks in lists)
        if not 0 <= start < end <= self._total:
            raise EngineError(f"Blocks {start} to {end - 1} of a model that has {self._total}.")
        self._start, self._end = start, end
        self.blocks: list[nn.Module] = []
        index = 0
        for blocks in lists:
            for place, block in enumerate(blocks):
                blocks[place] = self._in_place_of(index, block)
                index += 1

    def begin(self, work: Work, which: int, step: int, latents: mx.array) -> list[mx.array]:
        """Rank 0: a look up to the end of its own blocks; what the next rank goes on with,
        evaluated."""
        return self._left_of(work, which, step, latents)

    def finish(
        self, work: Work, which: int, step: int, latents: mx.array, came: Tensors
    ) -> mx.array:
        """Rank 0: the look, where `came` is what the last block gave."""
        self._came = came
        try:
            return self._family.look(which, step, latents, work.encoded, work.schedule)
        finally:
            self._came, self._left = None, ()

    def go_on(self, work: Work, which: int, step: int, came: Tensors) -> list[mx.array]:
        """Any other rank: what comes of these tensors after its own blocks, evaluated.

        Raises:
            RingError: they are not what goes into its first block.
        """
        self._came = came
        try:
            return self._left_of(work, which, step, self._family.noise(0, work.asked))
        finally:
            self._came = None

    def _left_of(self, work: Work, which: int, step: int, latents: mx.array) -> list[mx.array]:
        self._family.look(which, step, latents, work.encoded, work.schedule)
        left, self._left = [*self._left], ()
        mx.eval(*left)
        return left

    def _in_place_of(self, index: int, block: nn.Module) -> Any:
        if self._start <= index < self._end:
            self.blocks.append(block)
            first, last = index == self._start, index == self._total - 1
            if self._start == 0 or not (first or last):
                return block
            return _Own(block, self, first=first, last=last)
        return _Absent(self, at_end=index == self._end, last=index == self._total - 1)

    def enter(self, given: Tensors) -> Tensors:
        """What goes into the first block: what came from the rank before."""
        came = self._came
        if came is None or [t.shape for t in came] != [t.shape for t in given]:
            raise RingError("What came from the rank before is not what the next block needs.")
        return came

    def leave(self, tensors: Tensors) -> None:
        """After the last block of this rank."""
        self._left = tensors

    def returned(self, given: Tensors) -> Tensors:
        """After the last block of all: on rank 0, what came back; others do not need it."""
        return given if self._start or self._came is None else self.enter(given)


class _Absent:
    """A block of another rank."""

    def __init__(self, stage: Stage, *, at_end: bool, last: bool) -> None:
        self._stage = stage
        self._at_end = at_end
        self._last = last

    def __call__(self, **inputs: Any) -> Any:
        names = _names(inputs)
        given = [inputs[name] for name in names]
        if self._at_end:
            self._stage.leave(given)
        return _as_result(self._stage.returned(given) if self._last else given)


class _Own(nn.Module):
    """A block of this rank, with the stage looking at what goes in and comes out."""

    def __init__(self, block: nn.Module, stage: Stage, *, first: bool, last: bool) -> None:
        super().__init__()
        self.block = block
        self._stage = stage
        self._first = first
        self._last = last

    def __call__(self, **inputs: Any) -> Any:
        names = _names(inputs)
        if self._first:
            given = self._stage.enter([inputs[name] for name in names])
            inputs = {**inputs, **dict(zip(names, given, strict=True))}
        result = cast("Any", self.block)(**inputs)
        if self._last:
            self._stage.leave((result,) if len(names) == 1 else result)
        return result


def _names(inputs: dict[str, Any]) -> tuple[str, ...]:
    """The inputs that go through the blocks, in the order in which blocks return them."""
    if "encoder_hidden_states" in inputs:
        return ("encoder_hidden_states", "hidden_states")
    return ("x",) if "x" in inputs else ("hidden_states",)


def _as_result(tensors: Tensors) -> Any:
    return tensors[0] if len(tensors) == 1 else tuple(tensors)
