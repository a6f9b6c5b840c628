"""What a ring is told, and what it tells the process that it belongs to."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from exo.inference.ring.frames import Frame
from exo.inference.types import Wire


class Neighbour(Wire):
    """A runner that is next to this one: where it listens, and the certificate that it shows.
    `hosts` are tried in turn."""

    rank: int
    hosts: list[str]
    port: int
    certificate: str


class RingSpec(Wire):
    """One formation of a ring: `epoch` is unlike in any other, and the same for all ranks of this
    one."""

    epoch: str
    previous: Neighbour
    following: Neighbour


@dataclass(frozen=True)
class RingUp:
    """All links of the ring stand. `life` counts how often that has been so."""

    life: int


class RingFrame(NamedTuple):
    """The rank before sent something, in this life of the ring."""

    life: int
    frame: Frame


@dataclass(frozen=True)
class RingDown:
    """The ring is broken, or cannot be formed: why. It is being formed again."""

    life: int
    reason: str


RingEvent = RingUp | RingFrame | RingDown
Post = Callable[[RingEvent], None]


class Ring(Protocol):
    """The links to the two neighbours of a rank. Events come through the `Post` it was made with,
    from threads of its own."""

    @property
    def local_hosts(self) -> tuple[str, str]:
        """This side's addresses of the links to the rank before and to the next one.

        Raises:
            RingError: the ring is down.
        """
        ...

    def allow_silence(self, seconds: float) -> None:
        """Expect nothing of the rank before for so long, if it has something to do meanwhile that
        lets it say nothing."""
        ...

    def send(self, frame: Frame, life: int) -> None:
        """Write to the next rank. Called from one thread only.

        Raises:
            RingError: that life of the ring is over; the event has been or will be posted.
        """
        ...

    def give_up(self, reason: str) -> None:
        """End the present life of the ring, because what came over it makes no sense."""
        ...
