"""What ranks tell each other of one picture: looks at it, and what all its looks have in common.

Rank 0 sends a STEP frame for every look; that of a picture's first look also brings what they have
in common, which is everything but the words. What comes of a look is a RESULT frame. A FORGET frame
goes all the way round: behind it no rank has anything of the picture's looks before.
"""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from typing import Any, cast

import mlx.core as mx
import msgpack

from exo.errors import RingError
from exo.inference.image.mflux.asked import Asked
from exo.inference.image.mflux.family import Encoded, Family, Work
from exo.inference.image.mflux.patches import About, Patch
from exo.inference.mlx.tensors import describe, from_buffer, to_buffers
from exo.inference.ring.events import Ring
from exo.inference.ring.frames import Frame, Kind

# Waits for the next frame that comes to rank 0. Raises RingError when the ring is gone.
Await = Callable[[], Frame]
Tensors = Sequence[mx.array]


class Asking:
    """Rank 0's side: it asks for looks, and waits for what comes of them."""

    def __init__(self, ring: Ring, life: int, wait: Await) -> None:
        self._ring = ring
        self._life = life
        self._wait = wait
        self._told: Work | None = None
        self._number = 0

    def ask(self, work: Work, look: About, tensors: Tensors) -> None:
        """Send what a look begins with, or goes on with."""
        about: list[mx.array] = []
        said = _pack_look(look)
        if self._told is not work:
            self._number += 1
            said["work"] = _pack_work(work, about)
        said["number"] = self._number
        self._ring.send(_frame(Kind.STEP, said, about, tensors), self._life)
        self._told = work

    def answer(self, look: About) -> list[mx.array]:
        """What came of a look that was asked for; looks are answered in their order.

        Raises:
            RingError: the ring is gone, or the answer is to something else.
        """
        frame = self._wait()
        try:
            said, _, tensors = _read(frame, Kind.RESULT)
            if said != {"number": self._number, **_pack_look(look)}:
                raise RingError("The last rank answered what was not asked.")
        except RingError as error:
            self.give_up(error)
            raise
        return tensors

    def forget(self) -> None:
        """Have all ranks forget what they keep of a picture's looks; return when they have. What
        is still on its way of them comes before that, and is dropped.

        Raises:
            RingError: the ring is gone, and with it all that is kept.
        """
        self._ring.send(Frame(Kind.FORGET), self._life)
        while self._wait().kind is not Kind.FORGET:
            pass

    def give_up(self, error: RingError) -> None:
        """What else is on its way would not be what is asked next."""
        self._ring.give_up(error.message)


@dataclass(frozen=True)
class AskedLook:
    """A look that is asked of a rank; `about` is what goes on with it to the rank after."""

    said: dict[str, Any]
    work: Work
    look: About
    tensors: list[mx.array]
    about: list[mx.array]


class Answering:
    """Any other rank's side."""

    def __init__(self, family: Family, ring: Ring, life: int) -> None:
        self._family = family
        self._ring = ring
        self._life = life
        self._work: tuple[int, Work] | None = None

    def read(self, frame: Frame) -> AskedLook:
        """
        Raises:
            RingError: it makes no sense.
        """
        said, about, tensors = _read(frame, Kind.STEP)
        try:
            number, asked = int(said["number"]), _unpack_look(said)
            if "work" in said:
                self._work = number, _unpack_work(self._family, said["work"], about)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise RingError("A neighbour in the ring sent a look that cannot be read.") from error
        if self._work is None or self._work[0] != number:
            raise RingError("A look at a picture came that was not begun.")
        work = self._work[1]
        if asked.patch and not asked.patch.fits(work.asked.height // 16):
            raise RingError("A look came at a patch that the picture does not have.")
        return AskedLook(said, work, asked, tensors, about)

    def pass_on(self, look: AskedLook, tensors: Tensors) -> None:
        """To the next rank, which goes on with it."""
        self._ring.send(_frame(Kind.STEP, look.said, look.about, tensors), self._life)

    def answer(self, look: AskedLook, tensors: Tensors) -> None:
        """To rank 0: what came of it."""
        said = {"number": look.said["number"], **_pack_look(look.look)}
        self._ring.send(_frame(Kind.RESULT, said, [], tensors), self._life)


def _pack_look(look: About) -> dict[str, Any]:
    said: dict[str, Any] = {"which": look.which, "step": look.step}
    if look.keep:
        said["keep"] = True
    if look.patch is not None:
        said["patch"] = [*astuple(look.patch)]
    return said


def _unpack_look(said: dict[str, Any]) -> About:
    patch = None
    if "patch" in said:
        index, count, start, end = (int(each) for each in said["patch"])
        patch = Patch(index, count, start, end)
    keep = bool(said.get("keep", False))
    return About(int(said["which"]), int(said["step"]), keep, patch)


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
