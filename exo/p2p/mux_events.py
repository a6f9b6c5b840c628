"""What a `Mux` makes of the frames that come."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from exo.errors import ExoError, ProtocolError, from_wire
from exo.p2p.frames import Body
from exo.p2p.transport import Buffer


@dataclass(frozen=True, slots=True)
class Called:
    """A request to be replied to."""

    stream: int
    method: str
    body: Body


@dataclass(frozen=True, slots=True)
class Opened:
    """A stream to be filled with items."""

    stream: int
    method: str
    body: Body


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Nobody waits any more for what was called or opened."""

    stream: int


@dataclass(frozen=True, slots=True)
class Credited:
    """There may be room again for items of what was opened."""

    stream: int


@dataclass(frozen=True, slots=True)
class Replied:
    stream: int
    body: Body


@dataclass(frozen=True, slots=True)
class Item:
    """An item, still as bytes, which take less memory; `cost` is to be given back when taken."""

    stream: int
    data: Buffer
    cost: int


@dataclass(frozen=True, slots=True)
class Ended:
    stream: int


@dataclass(frozen=True, slots=True)
class Failed:
    stream: int
    error: ExoError


@dataclass(frozen=True, slots=True)
class Noticed:
    method: str
    body: Body


@dataclass(frozen=True, slots=True)
class Ponged:
    nonce: int


@dataclass(frozen=True, slots=True)
class SaidGoodbye:
    reason: str


# What the other side wants of this one, and what it has to say to what this one wanted.
Question = Called | Opened | Cancelled | Credited | Noticed
Answer = Replied | Item | Ended | Failed | Ponged | SaidGoodbye
Event = Question | Answer


def read_error(data: object) -> ExoError:
    """The error that the other side wrote, whatever it wrote.

    Raises:
        ProtocolError: it is no map.
    """
    if not isinstance(data, dict):
        raise ProtocolError("The other side's error is none.")
    fields = cast("Mapping[Any, object]", data)
    pause = fields.get("retry_after")
    clean: dict[str, Any] = {
        name: value if isinstance(value := fields.get(name), str) else None
        for name in ("hint", "param")
    }
    clean["code"] = str(fields.get("code", ""))
    clean["message"] = str(fields.get("message") or "The other side failed.")
    clean["retry_after"] = pause if isinstance(pause, int | float) else None
    return from_wire(clean)
