"""What carries a step and its tensors from rank to rank.

The body of a STEP frame is a list: the packed step, the tensors' shapes, and the seconds that each
rank took. The tensors' bytes follow it in the ring (`OverRing`), or go over `mx.distributed`
(`OverGroup`).
"""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any, Protocol, cast

import mlx.core as mx
import msgpack

from exo.errors import RingError
from exo.inference.mlx.expected import Blanks
from exo.inference.mlx.group import is_loss
from exo.inference.mlx.tensors import Shape, describe, dtype_of, from_buffer, to_buffers
from exo.inference.ring.events import Ring
from exo.inference.ring.frames import Frame, Kind

# Kept, since each allocates a large buffer. Steps are the main thread's.
_packer = msgpack.Packer()
# What a list of three begins with.
_FIELDS: bytes = _packer.pack_array_header(3)


class Carrier(Protocol):
    """Raises RingError, from each method, when a neighbour is lost."""

    def send_step(
        self, begun: bytes, tensors: Sequence[mx.array], seconds: Sequence[float]
    ) -> None:
        """Send a step to the next rank, with evaluated tensors. `begun` is of `begin_body`."""
        ...

    def tensors_of(self, frame: Frame, shapes: Sequence[Shape]) -> list[mx.array]:
        """The tensors that belong to a step's frame."""
        ...

    def fill(self, blanks: Blanks, frame: Frame) -> None:
        """Write the tensors that belong to a step's frame where they are waited for."""
        ...

    def send_result(self, packed: bytes) -> None:
        """Send a result to the next rank, which is rank 0."""
        ...


class OverRing:
    """Everything in frames of the ring."""

    def __init__(self, ring: Ring, life: int) -> None:
        self._ring = ring
        self._life = life

    def send_step(
        self, begun: bytes, tensors: Sequence[mx.array], seconds: Sequence[float]
    ) -> None:
        frame = Frame(Kind.STEP, _body(begun, seconds), to_buffers(tensors))
        self._ring.send(frame, self._life)

    def tensors_of(self, frame: Frame, shapes: Sequence[Shape]) -> list[mx.array]:
        return from_buffer(shapes, frame.tensors[0] if frame.tensors else memoryview(b""))

    def fill(self, blanks: Blanks, frame: Frame) -> None:
        blanks.fill(frame.tensors)

    def send_result(self, packed: bytes) -> None:
        self._ring.send(Frame(Kind.RESULT, packed), self._life)


class OverGroup(OverRing):
    """Frames in the ring, and tensors over `mx.distributed`. A frame comes first, so that nobody
    waits there for what may never come: that keeps a core busy, and knows no end."""

    def __init__(self, ring: Ring, life: int, group: mx.distributed.Group) -> None:
        super().__init__(ring, life)
        self._group = group

    def send_step(
        self, begun: bytes, tensors: Sequence[mx.array], seconds: Sequence[float]
    ) -> None:
        self._ring.send(Frame(Kind.STEP, _body(begun, seconds)), self._life)
        to = (self._group.rank() + 1) % self._group.size()
        with losses():
            for tensor in tensors:
                if tensor.size:
                    # One after the other: those that are evaluated together have no order.
                    mx.eval(mx.distributed.send(mx.contiguous(tensor), to, group=self._group))

    def tensors_of(self, frame: Frame, shapes: Sequence[Shape]) -> list[mx.array]:
        if frame.tensors:
            raise RingError("Tensors came over the ring, and were due over mx.distributed.")
        with losses():
            return [self._receive(*shape) for shape in shapes]

    def fill(self, blanks: Blanks, frame: Frame) -> None:
        blanks.fill(to_buffers(self.tensors_of(frame, blanks.shapes)))

    def _receive(self, name: str, shape: list[int]) -> mx.array:
        dtype = dtype_of(name, shape)
        if not prod(shape):
            return mx.zeros(shape, dtype)
        come_from = (self._group.rank() - 1) % self._group.size()
        tensor = mx.distributed.recv(shape, dtype, come_from, group=self._group)
        mx.eval(tensor)
        return tensor


def begin_body(packed: bytes, tensors: Sequence[mx.array]) -> bytes:
    """What of a STEP frame's body is known before the tensors are evaluated, so that nobody waits
    for it afterwards."""
    begun: bytes = _FIELDS + _packer.pack(packed) + _packer.pack(describe(tensors))
    return begun


def step_frame(packed: bytes) -> Frame:
    """The frame of a step that has no tensors."""
    return Frame(Kind.STEP, _body(begin_body(packed, ()), ()))


def read_step_frame(frame: Frame) -> tuple[bytes, list[Shape], list[float]]:
    """The packed step, its tensors' shapes, and the seconds that each rank before took.

    Raises:
        RingError: it is no such frame.
    """
    if frame.kind is not Kind.STEP:
        raise RingError(f"A frame of kind {frame.kind.name} came where a step was due.")
    try:
        packed, described, seconds = cast("list[Any]", msgpack.unpackb(frame.body))
        shapes = [(str(name), [int(size) for size in shape]) for name, shape in described]
        return bytes(packed), shapes, [float(value) for value in seconds]
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise RingError("A neighbour in the ring sent a step that cannot be read.") from error


@contextmanager
def losses() -> Generator[None]:
    """Make a `RingError` of what MLX raises when a rank of the group is lost."""
    try:
        yield
    except RuntimeError as error:
        if not is_loss(error):
            raise
        raise RingError(f"A rank is lost: {error}") from error


def _body(begun: bytes, seconds: Sequence[float]) -> bytes:
    body: bytes = begun + _packer.pack(seconds)
    return body
