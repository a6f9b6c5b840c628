"""Some of a transformer's blocks on this node, the others elsewhere.

Every rank runs the transformer's own code, with stand-ins for the blocks of other ranks: what
happens between blocks stays as mflux's authors wrote it. A stand-in hands on what it gets, and
since MLX computes what is asked for and nothing else, what comes before and after a rank's blocks
costs it nothing, and the weights of other blocks are never read.

What travels between two blocks is one tensor, or two where words and picture are apart. A look at
a patch of the picture (see `patches`) is narrow between the first block and the last, and as wide
as any before and after them.
"""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

from collections.abc import Sequence
from typing import Any, cast

import mlx.core as mx
from mlx import nn

from exo.errors import EngineError, RingError
from exo.inference.image.mflux.family import Family, Work
from exo.inference.image.mflux.patches import About, Cut
from exo.inference.image.mflux.stale import Stale, View

Tensors = Sequence[mx.array]


class Stage:
    """The blocks [start, end) of a model, counted over all of its lists; those of other ranks are
    taken out of it."""

    def __init__(self, family: Family, start: int, end: int) -> None:
        self._family = family
        self.stale = Stale(family)
        self._view: View | None = None
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
        if start == 0:
            refiners = family.refiners()
            for index, block in enumerate(refiners):
                refiners[index] = _Refiner(block, self, index, last=index == len(refiners) - 1)

    def begin(self, work: Work, about: About, latents: mx.array) -> list[mx.array]:
        """Rank 0: a look up to the end of its own blocks; what the next rank goes on with,
        evaluated.

        Raises:
            RingError: it is at a patch, and keys and values of the others were not kept.
        """
        return self._left_of(work, about, latents)

    def finish(self, work: Work, about: About, latents: mx.array, came: Tensors) -> mx.array:
        """Rank 0: the look, where `came` is what the last block gave."""
        self._came, self._view = came, self._view_of(work, about)
        try:
            return self._family.look(about.which, about.step, latents, work.encoded, work.schedule)
        finally:
            self._came, self._left, self._view = None, (), None

    def go_on(self, work: Work, about: About, came: Tensors) -> list[mx.array]:
        """Any other rank: what comes of these tensors after its own blocks, evaluated.

        Raises:
            RingError: they are not what goes into its first block, or, as above, a patch's.
        """
        self._came = came
        try:
            return self._left_of(work, about, self._family.noise(0, work.asked))
        finally:
            self._came = None

    def call(self, index: int, block: nn.Module | None, inputs: dict[str, Any]) -> Any:
        """What is in a place of the lists was called: a block, or a stand-in for one."""
        names, view = _names(inputs), self._view
        given: Tensors = [inputs[name] for name in names]
        if view and index == 0:
            given = view.narrow(given)
        if block is None or self._finishes:
            if index == self._end:
                self._left = given
        else:
            if index == self._start > 0:
                given = self._enter(given)
            inputs = {**inputs, **dict(zip(names, given, strict=True))}
            result = view.call("block", index, block, inputs) if view else _called(block, inputs)
            given = [result] if len(names) == 1 else result
        if index == self._total - 1:
            if block is not None:
                self._left = given
            elif self._finishes:
                given = self._enter(given)
            given = view.widen(given) if view else given
        return _as_result(given)

    def refine(self, index: int, block: nn.Module, inputs: dict[str, Any], *, last: bool) -> Any:
        """A refiner was called: a block that rank 0 alone has, of the picture before the others."""
        view = self._view
        if self._finishes:
            return inputs["x"]
        if view is None:
            return _called(block, inputs)
        given = [inputs["x"]]
        if index == 0:
            given = view.narrow(given, refining=True)
        given = [view.call("refiner", index, block, {**inputs, "x": given[0]})]
        return _as_result(view.widen(given, refining=True) if last else given)

    @property
    def _finishes(self) -> bool:
        """Whether rank 0 goes on behind the last block, so that no block is called."""
        return self._start == 0 and self._came is not None

    def _left_of(self, work: Work, about: About, latents: mx.array) -> list[mx.array]:
        self._view = self._view_of(work, about)
        try:
            self._family.look(about.which, about.step, latents, work.encoded, work.schedule)
        finally:
            self._view = None
        left, self._left = [*self._left], ()
        mx.eval(*left)
        return left

    def _view_of(self, work: Work, about: About) -> View | None:
        if about.patch is None:
            return View(self.stale, self._family, about.which) if about.keep else None
        layout = self._family.layout(about.which, work.encoded, work.asked)
        return View(self.stale, self._family, about.which, Cut(layout, about.patch))

    def _in_place_of(self, index: int, block: nn.Module) -> Any:
        if not self._start <= index < self._end:
            return _Absent(self, index)
        self.blocks.append(block)
        return _Own(block, self, index)

    def _enter(self, given: Tensors) -> Tensors:
        """What goes into the first block, or, on rank 0, comes out of the last one of all: what
        came from the rank before."""
        came = self._came
        if came is None or [t.shape for t in came] != [t.shape for t in given]:
            raise RingError("What came from the rank before is not what the next block needs.")
        return came


class _Absent:
    """A block of another rank."""

    def __init__(self, stage: Stage, index: int) -> None:
        self._stage = stage
        self._index = index

    def __call__(self, **inputs: Any) -> Any:
        return self._stage.call(self._index, None, inputs)


class _Own(nn.Module):
    """A block of this rank, with the stage looking at what goes in and comes out."""

    def __init__(self, block: nn.Module, stage: Stage, index: int) -> None:
        super().__init__()
        self.block = block
        self._stage = stage
        self._index = index

    def __call__(self, **inputs: Any) -> Any:
        return self._stage.call(self._index, self.block, inputs)


class _Refiner(nn.Module):
    """A block of the picture alone, which rank 0 has."""

    def __init__(self, block: nn.Module, stage: Stage, index: int, *, last: bool) -> None:
        super().__init__()
        self.block = block
        self._stage = stage
        self._index = index
        self._last = last

    def __call__(self, **inputs: Any) -> Any:
        return self._stage.refine(self._index, self.block, inputs, last=self._last)


def _called(block: nn.Module, inputs: dict[str, Any]) -> Any:
    return cast("Any", block)(**inputs)


def _names(inputs: dict[str, Any]) -> tuple[str, ...]:
    """The inputs that go through the blocks, in the order in which blocks return them."""
    if "encoder_hidden_states" in inputs:
        return ("encoder_hidden_states", "hidden_states")
    return ("x",) if "x" in inputs else ("hidden_states",)


def _as_result(tensors: Tensors) -> Any:
    return tensors[0] if len(tensors) == 1 else tuple(tensors)
