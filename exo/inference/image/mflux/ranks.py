"""One picture over several ranks: what they tell each other.

Rank 0 has the words, the VAE and the first blocks. It sends a STEP frame for every look; that of a
picture's first look also brings what all its looks have in common. Each rank goes on with its own
blocks; the last one's RESULT frame goes back to rank 0, which waits for it within the step.
"""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

from collections.abc import Callable, Sequence
from typing import Any, cast

import mlx.core as mx
import msgpack

from exo.errors import RingError
from exo.inference.image.mflux.asked import Asked
from exo.inference.image.mflux.family import Encoded, Family, Work
from exo.inference.image.mflux.split import Stage
from exo.inference.mlx.tensors import describe, from_buffer, to_buffers
from exo.inference.ring.events import Ring
from exo.inference.ring.frames import Frame, Kind

# Waits for the next frame that comes to rank 0. Raises RingError when the ring is gone.
Await = Callable[[], Frame]


class Head:
    """Rank 0, over one life of a ring."""

    def __init__(self, family: Family, stage: Stage, ring: Ring, life: int, wait: Await) -> None:
        self._family = family
        self._stage = stage
        self._ring = ring
        self._life = life
        self._wait = wait
        self._told: Work | None = None
        self._number = 0

    def look(self, work: Work, step: int, latents: mx.array) -> list[mx.array]:
        """All looks of a step. While others go on with one, this rank begins the next.

        Raises:
            RingError: the ring is gone.
        """
        begun = range(self._family.looks(work.encoded, work.schedule))
        for which in begun:
            tensors = self._stage.begin(work, which, step, latents)
            self._send(work, which, step, tensors)
        return [self._finish(work, which, step, latents) for which in begun]

    def _send(self, work: Work, which: int, step: int, tensors: Sequence[mx.array]) -> None:
        about: list[mx.array] = []
        said: dict[str, Any] = {"which": which, "step": step}
        if self._told is not work:
            self._number += 1
            said["work"] = _pack_work(work, about)
        said["number"] = self._number
        self._ring.send(_frame(Kind.STEP, said, about, tensors), self._life)
        self._told = work

    def _finish(self, work: Work, which: int, step: int, latents: mx.array) -> mx.array:
        """Go on with what the last rank made of a look that was sent."""
        frame = self._wait()
        try:
            said, _, tensors = _read(frame, Kind.RESULT)
            if said != {"number": self._number, "which": which, "step": step}:
                raise RingError("The last rank answered what was not asked.")
            return self._stage.finish(work, which, step, latents, tensors)
        except RingError as error:
            # What else is on its way would not be what is asked next.
            self._ring.give_up(error.message)
            raise


class Follower:
    """Any other rank, over one life of a ring."""

    def __init__(self, family: Family, stage: Stage, ring: Ring, life: int, *, last: bool) -> None:
        self._family = family
        self._stage = stage
        self._ring = ring
        self._life = life
        self._last = last
        self._work: tuple[int, Work] | None = None

    def receive(self, frame: Frame) -> None:
        """Compute what the rank before sent, and send it on.

        Raises:
            RingError: it makes no sense, or the ring is gone.
        """
        said, about, tensors = _read(frame, Kind.STEP)
        try:
            number, which, step = int(said["number"]), int(said["which"]), int(said["step"])
            if "work" in said:
                self._work = number, _unpack_work(self._family, said["work"], about)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise RingError("A neighbour in the ring sent a look that cannot be read.") from error
        if self._work is None or self._work[0] != number:
            raise RingError("A look at a picture came that was not begun.")
        left = self._stage.go_on(self._work[1], which, step, tensors)
        if self._last:
            said = {"number": number, "which": which, "step": step}
            self._ring.send(_frame(Kind.RESULT, said, [], left), self._life)
        else:
            self._ring.send(_frame(Kind.STEP, said, about, left), self._life)


def _frame(
    kind: Kind, said: dict[str, Any], about: Sequence[mx.array], tensors: Sequence[mx.array]
) -> Frame:
    """`about` are the arrays that `said` refers to."""
    body = {**said, "about": describe(about), "tensors": describe(tensors)}
    mx.eval(*about, *tensors)
    packed: bytes = msgpack.packb(body)
    return Frame(kind, packed, to_buffers([*about, *tensors]))


def _read(frame: Frame, kind: Kind) -> tuple[dict[str, Any], list[mx.array], list[mx.array]]:
    if frame.kind is not kind:
        raise RingError(f"A frame of kind {frame.kind.name} came where {kind.name} was due.")
    try:
        said: dict[str, Any] = msgpack.unpackb(frame.body)
        shapes = [
            (str(name), [int(size) for size in shape])
            for name, shape in (*said.pop("about"), *said["tensors"])
        ]
        own = len(said.pop("tensors"))
    except (ValueError, KeyError, TypeError, msgpack.UnpackException) as error:
        raise RingError("A neighbour in the ring sent a look that cannot be read.") from error
    arrays = from_buffer(shapes, frame.tensors[0] if frame.tensors else memoryview(b""))
    return said, arrays[: len(arrays) - own], arrays[len(arrays) - own :]


def _pack_work(work: Work, arrays: list[mx.array]) -> dict[str, Any]:
    """What a rank must know of a picture; not its words. Arrays are put into `arrays`."""
    asked = work.asked
    return {
        "width": asked.width,
        "height": asked.height,
        "guidance": asked.guidance,
        "steps": work.schedule.steps,
        "encoded": _pack_value(work.encoded, arrays),
    }


def _unpack_work(family: Family, said: dict[str, Any], arrays: Sequence[mx.array]) -> Work:
    asked = Asked(
        prompt="",
        negative_prompt=None,
        guidance=float(said["guidance"]),
        width=int(said["width"]),
        height=int(said["height"]),
    )
    encoded = cast("Encoded", _unpack_value(said["encoded"], arrays))
    return Work(asked, family.schedule(asked, int(said["steps"])), encoded)


def _pack_value(value: Any, arrays: list[mx.array]) -> Any:
    """Arrays, tuples and lists, which mflux tells apart, have a tag each."""
    if isinstance(value, mx.array):
        arrays.append(value)
        return ["array", len(arrays) - 1]
    if isinstance(value, dict):
        entries = cast("dict[str, Any]", value)
        return {name: _pack_value(each, arrays) for name, each in entries.items()}
    if isinstance(value, tuple | list):
        tag = "tuple" if isinstance(value, tuple) else "list"
        return [tag, *(_pack_value(each, arrays) for each in cast("list[Any]", value))]
    return value


def _unpack_value(value: Any, arrays: Sequence[mx.array]) -> Any:
    if isinstance(value, dict):
        entries = cast("dict[str, Any]", value)
        return {name: _unpack_value(each, arrays) for name, each in entries.items()}
    if isinstance(value, list):
        tag, *rest = cast("list[Any]", value)
        if tag == "array":
            return arrays[int(rest[0])]
        parts: list[Any] = [_unpack_value(each, arrays) for each in rest]
        return tuple(parts) if tag == "tuple" else parts
    return value
