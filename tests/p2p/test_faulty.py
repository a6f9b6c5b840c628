"""The faults that other tests are made of."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from exo.errors import LinkClosed, PeerTimeout
from exo.p2p.faulty import Faults, FaultyTransport
from exo.p2p.inproc import InprocNetwork
from exo.p2p.transport import Channel


@dataclass
class Net:
    """Ann and Bob, with a channel between them."""

    faults: Faults
    network: InprocNetwork = field(default_factory=InprocNetwork)

    def transport(self, name: str) -> FaultyTransport:
        return FaultyTransport(self.network.transport(name), self.faults, name)

    async def open(self) -> "Net":
        accepted: asyncio.Queue[Channel] = asyncio.Queue()
        self.listener = await self.transport("bob").listen("/memory/1", accepted.put)
        self.ann = await self.transport("ann").connect("/memory/1", "bob")
        self.bob = await accepted.get()
        return self


@pytest.fixture
async def net() -> AsyncGenerator[Net]:
    found = await Net(Faults()).open()
    yield found
    found.ann.abort()
    found.bob.abort()
    await found.listener.close()


async def pending(task: asyncio.Task[object]) -> bool:
    for _ in range(5):
        await asyncio.sleep(0)
    return not task.done()


async def test_without_faults_all_passes(net: Net):
    await net.ann.send(b"x")
    assert await net.bob.receive() == b"x"
    assert (net.ann.peer_id, net.ann.address) == ("bob", "/memory/1")
    assert net.ann.binding == net.bob.binding
    await net.ann.close()
    with pytest.raises(LinkClosed):
        await net.bob.receive()


@pytest.mark.parametrize("how", ["partition", "stall"])
async def test_what_does_not_pass_comes_when_it_is_healed(net: Net, how: str):
    if how == "partition":
        net.faults.partition({"ann"}, {"bob", "eve"})
        assert net.faults.passes("bob", "eve")
    else:
        net.faults.stall("ann", "bob")
        assert net.faults.passes("ann", "eve")
    sending = asyncio.create_task(net.ann.send(b"x"))
    receiving = asyncio.create_task(net.bob.receive())
    assert await pending(receiving)
    net.faults.heal()
    await sending
    assert await receiving == b"x"


async def test_what_was_sent_before_a_partition_comes_after_it(net: Net):
    await net.ann.send(b"x")
    await net.ann.close()
    net.faults.partition({"ann"})
    receiving = asyncio.create_task(net.bob.receive())
    assert await pending(receiving)
    net.faults.heal()
    assert await receiving == b"x"


async def test_the_end_of_a_connection_is_not_heard_through_a_partition(net: Net):
    net.faults.partition({"ann"})
    receiving = asyncio.create_task(net.bob.receive())
    net.ann.abort()
    assert await pending(receiving)
    net.faults.heal()
    with pytest.raises(LinkClosed):
        await receiving


@pytest.mark.parametrize("expect", ["bob", None])
async def test_through_a_partition_nobody_can_be_dialled(net: Net, expect: str | None):
    net.faults.partition({"ann"})
    with pytest.raises(PeerTimeout):
        await net.transport("ann").connect("/memory/1", expect)


async def test_a_cut_breaks_the_connections_of_a_pair(net: Net):
    receiving = asyncio.create_task(net.bob.receive())
    net.faults.cut("bob", "eve")
    assert await pending(receiving)
    net.faults.cut("bob", "ann")
    with pytest.raises(LinkClosed):
        await receiving


async def test_the_same_seed_breaks_at_the_same_frame():
    async def run(seed: int) -> int:
        net = await Net(Faults(seed, break_chance=0.1)).open()
        sent = 0
        with suppress(LinkClosed):
            while True:
                await net.ann.send(b"")
                sent += 1
        await net.listener.close()
        return sent

    assert [await run(seed) for seed in range(5)] == [await run(seed) for seed in range(5)]
    assert len({await run(seed) for seed in range(5)}) > 1


async def test_delays_are_drawn_from_the_seed_and_slept_by_the_tests_clock():
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    net = await Net(Faults(1, delay=(0.5, 2.0), sleep=sleep)).open()
    for _ in range(10):
        await net.ann.send(b"x")
    assert len(set(slept)) == 10
    assert all(0.5 <= seconds <= 2.0 for seconds in slept)
    net.ann.abort()
    await net.listener.close()
