"""How the ranks of a ring get to know where each takes the connections of a group: pure.

A group of `mx.distributed` has links of its own, which neither wait for a neighbour that is late
nor know who it is; so it is formed over a ring that stands. Three frames go round:

    ADDRESSES   rank 0 begins a list, each rank adds its own address
    ADDRESSES   rank 0 sends the whole list round; who has it joins the group
    LOADED      each rank passes it on when it has loaded; back at rank 0, all have
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgpack

from exo.errors import RingError
from exo.inference.ring.frames import Frame, Kind


class Address(NamedTuple):
    """Where a rank takes the connections of its group: an IPv4 address and a port; and the names of
    the interfaces of its links, to the rank before and to the next one, as far as they have any."""

    host: str
    port: int
    before: str = ""
    after: str = ""

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Told(NamedTuple):
    """What an ADDRESSES frame led to: what to send on, if anything, and the addresses of all
    ranks, once they are known."""

    send: Frame | None
    addresses: tuple[Address, ...] | None


def first(own: Address) -> Frame:
    """What rank 0 begins with."""
    return _frame([own])


def told(frame: Frame, rank: int, size: int, own: Address) -> Told:
    """What `rank` of `size` does with an ADDRESSES frame.

    Raises:
        RingError: it makes no sense here.
    """
    found = _read(frame)
    if len(found) == size:
        return Told(_frame(found) if rank != size - 1 else None, tuple(found))
    if len(found) != rank or rank == 0:
        raise RingError(f"{len(found)} addresses came to rank {rank} of {size}.")
    found.append(own)
    # The last rank's list is whole, but rank 0 is to be the first who has it: it is the one that
    # others connect to first.
    return Told(_frame(found), None)


def _frame(addresses: Sequence[Address]) -> Frame:
    return Frame(Kind.ADDRESSES, msgpack.packb([list(address) for address in addresses]))


def _read(frame: Frame) -> list[Address]:
    try:
        body: Any = msgpack.unpackb(frame.body)
        return [
            Address(str(host), int(port), str(before), str(after))
            for host, port, before, after in body
        ]
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise RingError("A neighbour in the ring sent addresses that cannot be read.") from error
