"""Real runner processes as the ranks of one ring, told of each other as their daemons would."""

import asyncio
import hashlib
import os
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from exo.inference.messages import (
    Connect,
    Failed,
    Finished,
    FromRunner,
    Generate,
    Listening,
    Load,
    Ready,
    RequestFailed,
    RingLost,
    Tokens,
)
from exo.inference.ring.events import Neighbour, RingSpec
from exo.inference.runner.process import Quiet, RunnerProcess
from exo.inference.types import Delta, GenerateRequest

ENVIRONMENT = {"PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"}


class Rank:
    """One rank: its process, and everything that it said, in a queue for each who waits."""

    # Seconds in which it must say what is waited for.
    patience: ClassVar[float] = 60.0

    def __init__(self, process: RunnerProcess) -> None:
        self.process = process
        self.said: list[FromRunner | Quiet] = []
        self.times: list[float] = []
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._listen())

    async def wait_for(self, kind: type | tuple[type, ...], since: int = 0) -> Any:
        """The first message of that kind from number `since` on."""
        async with asyncio.timeout(self.patience):
            while True:
                # Each is looked at once: benchmarks have thousands.
                for message in self.said[since:]:
                    since += 1
                    if isinstance(message, kind):
                        return message
                assert self.process.alive, f"no {kind} before the end: {self.said[-3:]}"
                self._changed.clear()
                await self._changed.wait()

    async def heard(self) -> None:
        """Wait for it to say something."""
        self._changed.clear()
        await self._changed.wait()

    async def stop(self) -> None:
        await self.process.stop()
        await self._task

    async def _listen(self) -> None:
        async for message in self.process.messages():
            self.said.append(message)
            self.times.append(asyncio.get_running_loop().time())
            self._changed.set()
        self._changed.set()


class Ranks:
    """So many ranks of a model. `cuts` are the layers before which it is cut."""

    def __init__(self, folder: Path, layers: int, cuts: Sequence[int], **load: Any) -> None:
        self.bounds = [0, *cuts, layers]
        self.size = len(self.bounds) - 1
        self._folder = folder
        self._load = load
        self.ranks: list[Rank] = []
        self._asked = 0
        self._engine = "mlx"

    async def start(self, environments: Sequence[dict[str, str]] = (), engine: str = "mlx") -> None:
        """Return when all are ready."""
        self._engine = engine
        extra = environments or [{}] * self.size
        self.ranks = [await self._start(rank, extra[rank]) for rank in range(self.size)]
        await self.connect()

    async def restart(self, rank: int) -> None:
        """Start another process for a rank, and tell all."""
        await self.ranks[rank].stop()
        self.ranks[rank] = await self._start(rank, {})
        await self.connect()

    async def connect(self) -> None:
        """Tell all ranks of each other; return when all are ready."""
        marks = [len(rank.said) for rank in self.ranks]
        if self.size == 1:
            await self.ranks[0].wait_for(Ready)
            return
        ends: list[Listening] = [await rank.wait_for(Listening) for rank in self.ranks]
        epoch = hashlib.sha256("".join(end.certificate for end in ends).encode()).hexdigest()
        around = [
            Neighbour(rank=at, hosts=["127.0.0.1"], port=end.port, certificate=end.certificate)
            for at, end in enumerate(ends)
        ]
        for at, rank in enumerate(self.ranks):
            ring = RingSpec(
                epoch=epoch,
                previous=around[(at - 1) % self.size],
                following=around[(at + 1) % self.size],
            )
            rank.process.send(Connect(ring=ring))
        for rank, mark in zip(self.ranks, marks, strict=True):
            await rank.wait_for(Ready, mark)

    async def stop(self) -> None:
        await asyncio.gather(*(rank.stop() for rank in self.ranks))

    def ask(self, text: str, **fields: Any) -> str:
        """Send a request; return its id."""
        self._asked += 1
        request_id = f"r{self._asked}"
        fields.setdefault("sampling", {"temperature": 0})
        request = GenerateRequest.model_validate(
            {
                "request_id": request_id,
                "messages": [{"role": "user", "content": text}],
                **fields,
            }
        )
        self.ranks[0].process.send(Generate(request=request))
        return request_id

    async def outcome(self, request_id: str) -> Finished | RequestFailed:
        """How a request ended."""
        since = 0
        while True:
            end = await self.ranks[0].wait_for((Finished, RequestFailed), since)
            if end.request_id == request_id:
                return end
            since = self.ranks[0].said.index(end) + 1

    def deltas(self, request_id: str) -> list[Delta]:
        said = [message for message in self.ranks[0].said if isinstance(message, Tokens)]
        return [d for message in said for d in message.deltas if d.request_id == request_id]

    def tokens(self, request_id: str, index: int = 0) -> list[int]:
        return [t for d in self.deltas(request_id) if d.index == index for t in d.token_ids]

    async def answer(self, text: str, **fields: Any) -> list[int]:
        """The tokens of a whole answer."""
        request_id = self.ask(text, **fields)
        assert isinstance(await self.outcome(request_id), Finished)
        return self.tokens(request_id)

    async def lost(self, since: Sequence[int], but: int) -> None:
        """Wait until each rank but one has said that the ring is lost, from message `since` on."""
        for at, (rank, mark) in enumerate(zip(self.ranks, since, strict=True)):
            if at != but:
                await rank.wait_for(RingLost, mark)

    async def _start(self, rank: int, environment: dict[str, str]) -> Rank:
        process = await RunnerProcess.start(self._engine, {**ENVIRONMENT, **environment})
        settings = {
            "path": self._folder,
            "start_layer": self.bounds[rank],
            "end_layer": self.bounds[rank + 1],
            "context_length": 2048,
            "max_concurrency": 16,
            "max_queue": 16,
            "kv_tokens": 10**6,
            "kv_bytes_per_token": 256,
            "prefix_cache_bytes": 10**7,
            "cast_float32": True,
            "rank": rank,
            "size": self.size,
            "ring_host": "127.0.0.1",
            "plan": str(self.bounds),
        }
        process.send(Load.model_validate({**settings, **self._load}))
        return Rank(process)


class Group(Ranks):
    """So many ranks with a group of `mx.distributed`, each with a part of every layer, or with
    layers of its own if it is cut. As their daemons do, a rank that gives up is ended."""

    def __init__(
        self, folder: Path, layers: int, size: int, cuts: Sequence[int] = (), **load: Any
    ) -> None:
        load["group"] = "ring"
        if not cuts:
            load |= {"tensor": True, "start_layer": 0, "end_layer": layers, "plan": "all"}
        super().__init__(folder, layers, cuts or [0] * (size - 1), **load)

    async def given_up(self, rank: int) -> Failed:
        """Wait until a rank says that it is of no use any more, and end it."""
        failed: Failed = await self.ranks[rank].wait_for(Failed)
        await self.ranks[rank].stop()
        return failed

    async def start_again(self) -> None:
        """Other processes for all ranks."""
        await self.stop()
        await self.start()


async def running(ranks: Ranks) -> AsyncIterator[Ranks]:
    """For fixtures: started, and stopped after the test."""
    try:
        await ranks.start()
        yield ranks
    finally:
        await ranks.stop()
