"""Faults between nodes, scripted: wraps any `Transport`.

    faults = Faults(seed=1)
    a = FaultyTransport(network.transport("a"), faults, "a")     and so on for b, c
    faults.partition({"a"}, {"b", "c"})     nothing passes: no bytes, no FIN
    faults.heal()                           what was on its way arrives, as TCP sends it again
    faults.cut("a", "b")                    connections break

What happens by chance (`delay`, `break_chance`) is drawn from the seed.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Set

from exo.errors import LinkClosed, PeerTimeout
from exo.p2p.transport import MAX_FRAME, Accept, Buffer, Channel, Listener, Transport

Sleep = Callable[[float], Awaitable[None]]


class Faults:
    """What is wrong between which nodes. One for all nodes of a test.

    `delay`: the least and most seconds that a frame takes; `break_chance`: that the connection
    breaks at a frame; `sleep` is where a test's own clock comes in.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        delay: tuple[float, float] = (0.0, 0.0),
        break_chance: float = 0.0,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.delay = delay
        self.break_chance = break_chance
        self._random = random.Random(seed)  # noqa: S311  it must be repeatable
        self._sleep = sleep
        self._stalled: set[frozenset[str]] = set()
        self._groups: tuple[Set[str], ...] = ()
        self._channels: set[FaultyChannel] = set()
        self._changed = asyncio.Event()

    def partition(self, *groups: Set[str]) -> None:
        """Only nodes of the same group reach each other; a node of none is in one with the others
        of none."""
        self._groups = groups
        self._tell()

    def stall(self, one: str, other: str) -> None:
        """Let nothing pass between two nodes."""
        self._stalled.add(frozenset((one, other)))
        self._tell()

    def heal(self) -> None:
        """End all stalls and partitions."""
        self._stalled.clear()
        self._groups = ()
        self._tell()

    def cut(self, one: str, other: str) -> None:
        """Break the connections between two nodes."""
        pair = {one, other}
        for channel in list(self._channels):
            if {channel.here, channel.peer_id} == pair:
                channel.abort()

    def passes(self, one: str, other: str) -> bool:
        """Whether anything passes between two nodes."""
        if frozenset((one, other)) in self._stalled:
            return False
        return self._group(one) == self._group(other)

    async def wait_until_passes(self, one: str, other: str) -> None:
        while not self.passes(one, other):
            await self._changed.wait()

    async def befall(self, channel: "FaultyChannel") -> None:
        """Let happen to a frame what may.

        Raises:
            LinkClosed: the connection broke.
        """
        if self.break_chance and self._random.random() < self.break_chance:
            channel.abort()
            raise LinkClosed("The connection broke.")
        least, most = self.delay
        if most > 0:
            await self._sleep(self._random.uniform(least, most))

    def track(self, channel: "FaultyChannel") -> None:
        self._channels.add(channel)

    def forget(self, channel: "FaultyChannel") -> None:
        self._channels.discard(channel)

    def _group(self, node: str) -> int | None:
        return next((i for i, group in enumerate(self._groups) if node in group), None)

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class FaultyTransport:
    """One node's transport, as bad as `faults` make it."""

    def __init__(self, inner: Transport, faults: Faults, peer_id: str) -> None:
        self._inner = inner
        self._faults = faults
        self._peer_id = peer_id

    @property
    def refused(self) -> Counter[str]:
        return self._inner.refused

    async def listen(self, address: str, accept: Accept) -> Listener:
        async def accept_faulty(channel: Channel) -> None:
            await accept(FaultyChannel(channel, self._faults, self._peer_id))

        return await self._inner.listen(address, accept_faulty)

    async def connect(self, address: str, expect: str | None) -> Channel:
        """Where nothing passes it times out, at once: nobody wants to wait for that in a test."""
        if expect is not None and not self._faults.passes(self._peer_id, expect):
            raise PeerTimeout(f"{address} does not answer.")
        channel = await self._inner.connect(address, expect)
        if not self._faults.passes(self._peer_id, channel.peer_id):
            channel.abort()
            raise PeerTimeout(f"{address} does not answer.")
        return FaultyChannel(channel, self._faults, self._peer_id)


class FaultyChannel:
    """One side of a channel, `here`."""

    def __init__(self, inner: Channel, faults: Faults, here: str) -> None:
        self.here = here
        self.peer_id = inner.peer_id
        self.binding = inner.binding
        self.address = inner.address
        self._inner = inner
        self._faults = faults
        faults.track(self)

    async def send(self, *parts: Buffer) -> None:
        await self._faults.befall(self)
        await self._faults.wait_until_passes(self.here, self.peer_id)
        await self._inner.send(*parts)

    async def receive(self, limit: int = MAX_FRAME) -> bytes | bytearray:
        try:
            frame = await self._inner.receive(limit)
        except LinkClosed:
            # That the other side has closed is not heard of either.
            await self._faults.wait_until_passes(self.here, self.peer_id)
            raise
        await self._faults.wait_until_passes(self.here, self.peer_id)
        return frame

    def abort(self) -> None:
        self._faults.forget(self)
        self._inner.abort()

    async def close(self) -> None:
        self._faults.forget(self)
        await self._inner.close()
