"""A step that is built before it comes, while nobody waits for this rank.

To call a model's layers from Python takes a good part of a step's time, and a rank of a ring with
few streams waits for the others most of the time. What the next step of a group will be is known,
but for its tokens and for what the rank before computes: these stand in the graph as blanks, whose
bytes are written when they come. An array shares its memory with Python's buffers
(https://ml-explore.github.io/mlx/build/html/usage/numpy.html).

A model whose layers look at what they are given cannot be built so: it would see the blanks.
"""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from io import StringIO
from typing import Any, cast

import mlx.core as mx

from exo.errors import RingError
from exo.inference.mlx.adapter import Cache
from exo.inference.mlx.computed import Computed
from exo.inference.mlx.tensors import Shape, dtype_of, size_of
from exo.inference.steps import LAST_SAMPLED, Decode


class Blanks:
    """Arrays of these shapes whose bytes come later, all of them after each other."""

    def __init__(self, shapes: Sequence[Shape]) -> None:
        self.shapes = list(shapes)
        # Buffers make arrays and arrays are buffers, which their stubs do not say.
        memory = [mx.array(cast("Any", bytearray(size_of(shape)))) for shape in shapes]
        self._views = [memoryview(cast("Any", each)) for each in memory]
        self.arrays = [
            each.view(dtype_of(*shape)).reshape(shape[1])
            for each, shape in zip(memory, shapes, strict=True)
        ]

    @property
    def seen(self) -> bool:
        """Whether something that depends on them has been evaluated."""
        return not all(_is_lazy(each) for each in self.arrays)

    def fill(self, buffers: Sequence[memoryview]) -> None:
        """Write what has come, before what was built with it is evaluated.

        Raises:
            RingError: it is more or less than there is room for.
        """
        room, come = sum(view.nbytes for view in self._views), sum(b.nbytes for b in buffers)
        if room != come:
            raise RingError(f"A neighbour in the ring sent {come} bytes of tensors, not {room}.")
        whole = memoryview(b"".join(buffers)) if len(buffers) != 1 else buffers[0]
        for view in self._views:
            view[:] = whole[: view.nbytes]
            whole = whole[view.nbytes :]


def _is_lazy(made: mx.array) -> bool:
    """Whether an array that something computes is still to be evaluated: then its graph has a way
    that leads to it."""
    graph = StringIO()
    mx.export_to_dot(graph, made)
    return "->" in graph.getvalue()


@cache
def can_be_filled() -> bool:
    """Whether this device's arrays show what is written to them after a graph was built."""
    blanks = Blanks([("float32", [2])])
    doubled = blanks.arrays[0] + blanks.arrays[0]
    blanks.fill([memoryview(array("f", (1.0, 3.0))).cast("B")])
    return doubled.tolist() == [2.0, 6.0]


@dataclass(frozen=True)
class Expected:
    """A step of a group that is likely to come, without drafts. `caches` are the group's then."""

    group: int
    positions: tuple[int, ...]
    tokens: Blanks
    inputs: Blanks
    caches: list[Cache]
    computed: Computed

    def is_step(self, work: Decode, shapes: Sequence[Shape]) -> bool:
        """Whether it is this one that has come."""
        return (
            self.positions == work.positions
            and not work.drafts
            and LAST_SAMPLED not in work.tokens
            and self.inputs.shapes == list(shapes)
        )
