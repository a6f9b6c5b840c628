"""What a hop of the ring costs one stream, beside a plain TLS socket in the same run.

    python -m benchmarks.hop [--scale 8] [--layers 8] [--rounds 6] [--tokens 300]

Two runners with a core each compute one stream. The peer is two processes on the same cores that do
nothing but read memory for as long as a stage takes, and hand as many bytes on over blocking TLS
sockets as the ring does. They take turns. That socket is what the machine allows: a core that waits
is asleep and has to be woken, and what a stage reads leaves nothing else in the core's caches.
Needs Linux.
"""

import argparse
import asyncio
import socket
import statistics
import struct
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

import numpy as np

from benchmarks.pinned import PinnedProcesses, PinnedRanks, one_thread
from benchmarks.ring import measure
from exo.inference.messages import Load, RingStats
from exo.inference.micro_batches import MicroBatches
from exo.inference.mlx.engine import MlxEngine
from exo.inference.ring.credentials import Credentials
from tests.models_maker import HIDDEN, make_model

ENGINE = "benchmarks.hop:EachHop"
# What a stage reads: more than the caches of a core hold.
_MEMORY = 32 * 2**20
# Bytes of a step and of a result beside its tensors.
_STEP, _RESULT = 150, 70
_WORKED = struct.Struct(">d")


class AllHops(MicroBatches):
    """Tells the median of all hops since it was last asked, where the scheduler smooths them."""

    def __init__(self, stages: int) -> None:
        super().__init__(stages)
        self.seen: list[float] = []

    def travelled(self, hop: float) -> None:
        super().travelled(hop)
        self.seen.append(hop)


class EachHop(MlxEngine):
    def load(self, load: Load, progress: Any) -> int:
        size = super().load(load, progress)
        if self._planner is not None:
            self._planner.batches = AllHops(load.size)
        return size

    def stats(self) -> RingStats:
        batches = self._planner and self._planner.batches
        assert isinstance(batches, AllHops)
        hops, batches.seen = batches.seen, []
        told = super().stats()
        return told.model_copy(update={"hop": statistics.median(hops)}) if hops else told


@dataclass(frozen=True)
class Turn:
    """So many round trips, with stages of so many seconds, and tensors of so many bytes."""

    trips: int
    seconds: Sequence[float]
    tensors: int


class PlainSockets:
    """The peer: two processes and a TLS socket in each direction."""

    def __init__(self) -> None:
        self._processes = PinnedProcesses()

    def __enter__(self) -> Self:
        for serve in (_first, _second):
            self._processes.start(serve)
        # Each tells where it listens and what it shows; the other connects.
        controls = self._processes.controls
        said = [control.recv() for control in controls]
        for control, other in zip(controls, reversed(said), strict=True):
            control.send(other)
        return self

    def __exit__(self, *exc: object) -> None:
        self._processes.stop()

    def hops(self, turn: Turn) -> list[float]:
        """Seconds of a hop, of each round trip.

        Raises:
            EOFError: a process has ended; it said why.
        """
        for control in self._processes.controls:
            control.send(turn)
        found: list[float] = self._processes.controls[0].recv()
        return found


def _linked(control: Connection, *, dials: bool) -> tuple[socket.socket, socket.socket]:
    """TLS sockets to read from the other process and to write to it. One dials first."""
    listener, credentials = socket.create_server(("127.0.0.1", 0)), Credentials()
    control.send((listener.getsockname(), credentials.certificate))
    address, certificate = control.recv()

    def dial() -> socket.socket:
        return _plain(credentials, socket.create_connection(address), certificate, server=False)

    def accept() -> socket.socket:
        return _plain(credentials, listener.accept()[0], certificate, server=True)

    if dials:
        writing = dial()
        return accept(), writing
    return accept(), dial()


def _plain(
    credentials: Credentials, link: socket.socket, certificate: str, *, server: bool
) -> socket.socket:
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    context = credentials.context(certificate, server=server)
    assert context is not None
    return context.wrap_socket(link, server_side=server)


def _first(control: Connection) -> None:
    reading, writing = _linked(control, dials=True)
    memory = np.ones(_MEMORY // 4, np.float32)
    while True:
        turn: Turn = control.recv()
        step, found = bytes(_STEP + turn.tensors), list[float]()
        for _ in range(turn.trips):
            begun = time.perf_counter()
            worked = _work(memory, turn.seconds[0])
            writing.send(step)
            (elsewhere,) = _WORKED.unpack(_read(reading, _WORKED.size + _RESULT)[: _WORKED.size])
            found.append((time.perf_counter() - begun - worked - elsewhere) / 2)
        control.send(found)


def _second(control: Connection) -> None:
    reading, writing = _linked(control, dials=False)
    memory = np.ones(_MEMORY // 4, np.float32)
    while True:
        turn: Turn = control.recv()
        for _ in range(turn.trips):
            _read(reading, _STEP + turn.tensors)
            writing.send(_WORKED.pack(_work(memory, turn.seconds[1])) + bytes(_RESULT))


def _work(memory: Any, seconds: float) -> float:
    """Read memory for about so long; how long it was."""
    begun = time.perf_counter()
    at, part = 0, len(memory) // 64
    while time.perf_counter() - begun < seconds:
        memory[at : at + part].sum()
        at = (at + part) % len(memory)
    return time.perf_counter() - begun


def _read(link: socket.socket, size: int) -> memoryview:
    found, done = memoryview(bytearray(size)), 0
    while done < size:
        count = link.recv_into(found[done:])
        if not count:
            raise EOFError("the other process has ended")
        done += count
    return found


async def told(ring: PinnedRanks, tokens: int) -> RingStats:
    """What the ring told of itself last, in a stream of so many tokens."""
    since = len(ring.ranks[0].said)
    await measure(ring, 1, tokens)
    said = ring.ranks[0].said[since:]
    return [each for each in said if isinstance(each, RingStats) and each.rows == 1][-1]


async def compare(ring: PinnedRanks, plain: PlainSockets, options: argparse.Namespace) -> None:
    hops: list[float] = []
    ratios: list[float] = []
    for _ in range(options.rounds):
        stats = await told(ring, options.tokens)
        turn = Turn(options.tokens, stats.seconds, HIDDEN * options.scale * 4)
        bare = statistics.median(await asyncio.to_thread(plain.hops, turn))
        stages = " and ".join(f"{seconds * 1e3:.2f}" for seconds in stats.seconds)
        print(f"stages {stages} ms: a hop {stats.hop * 1e3:.3f} ms, a socket {bare * 1e3:.3f} ms")
        hops.append(stats.hop)
        ratios.append(stats.hop / bare)
    print(
        f"a hop: {statistics.median(hops) * 1e3:.3f} ms ({min(hops) * 1e3:.3f} to "
        f"{max(hops) * 1e3:.3f}), {statistics.median(ratios):.2f} times a plain socket's "
        f"({min(ratios):.2f} to {max(ratios):.2f})"
    )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=int, default=8, help="times the width of a tiny model")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=300, help="of a round")
    parser.add_argument("--rounds", type=int, default=6)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = make_model(
            Path(scratch) / "model", layers=options.layers, scale=options.scale, ends=False
        )
        blas = one_thread(Path(scratch))
        ring = PinnedRanks(folder, options.layers, [options.layers // 2])
        try:
            await ring.start([blas] * 2, engine=ENGINE)
            await measure(ring, 1, 20)
            with PlainSockets() as plain:
                await compare(ring, plain, options)
        finally:
            await ring.stop()


if __name__ == "__main__":
    asyncio.run(main())
