"""Rings of several ranks in one process, and strangers that would like to be one."""

import queue
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from exo.inference.ring import tcp
from exo.inference.ring.events import Neighbour, RingDown, RingEvent, RingFrame, RingSpec, RingUp
from exo.inference.ring.tcp import TcpRing

PATIENCE = 20.0


class Rank:
    """One rank, and everything that it said."""

    def __init__(self, rank: int, *, encrypted: bool = True) -> None:
        self.events: queue.SimpleQueue[RingEvent] = queue.SimpleQueue()
        self.ring = TcpRing(rank, "127.0.0.1", self.events.put, encrypted=encrypted)
        self.life = -1

    @property
    def neighbour(self) -> Neighbour:
        return Neighbour(
            rank=self.ring.rank,
            hosts=["127.0.0.1"],
            port=self.ring.port,
            certificate=self.ring.credentials.certificate,
        )

    def up(self) -> None:
        """Wait until the ring stands."""
        while not isinstance(event := self.events.get(timeout=PATIENCE), RingUp):
            pass
        self.life = event.life

    def down(self) -> str:
        """Wait until it is broken; say why."""
        while not isinstance(event := self.events.get(timeout=PATIENCE), RingDown):
            pass
        return event.reason

    def frame(self) -> RingFrame:
        while not isinstance(event := self.events.get(timeout=PATIENCE), RingFrame):
            pass
        return event


def specs(ranks: list[Rank], epoch: str = "one") -> list[RingSpec]:
    size = len(ranks)
    return [
        RingSpec(
            epoch=epoch,
            previous=ranks[(at - 1) % size].neighbour,
            following=ranks[(at + 1) % size].neighbour,
        )
        for at in range(size)
    ]


def close(ranks: list[Rank]) -> None:
    for rank in ranks:
        rank.ring.close()


def formed(size: int, *, encrypted: bool = True) -> list[Rank]:
    """So many ranks, connected."""
    ranks = [Rank(rank, encrypted=encrypted) for rank in range(size)]
    for rank, spec in zip(ranks, specs(ranks), strict=True):
        rank.ring.connect(spec)
    for rank in ranks:
        rank.up()
    return ranks


@contextmanager
def hurried() -> Iterator[None]:
    """Silence is noticed sooner, so that tests are quick."""
    with patch.object(tcp, "SILENCE", 0.6), patch.object(tcp, "HEARTBEAT", 0.15):
        yield
