"""This node's copy of the log, and the state it folds to."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

from exo.cluster.events import Entry
from exo.cluster.log import EventLog
from exo.cluster.state import ClusterState
from exo.p2p.term import Term

T = TypeVar("T")
OnChange = Callable[[ClusterState], None]
_BATCH = 500


def utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Replica:
    """Written by one at a time: the master that this node is, or the one it follows."""

    def __init__(self, event_log: EventLog, on_change: OnChange) -> None:
        self._log = event_log
        self._on_change = on_change
        # SQLite waits for the disk: it does so in a thread of its own, one write after another.
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="log")
        self._lock = asyncio.Lock()
        self._writes: set[asyncio.Task[ClusterState]] = set()
        self._changed = asyncio.Event()
        self._resets, self._reset_at = 0, 0
        self.state = event_log.state

    async def close(self) -> None:
        if self._writes:
            await asyncio.wait(self._writes)
        self._disk.shutdown()
        self._log.close()

    async def append(
        self, make: Callable[[], Sequence[Entry]], *, durable: bool = False
    ) -> ClusterState:
        """Append what `make` returns, which is called when it is its turn; return the new state.

        What was begun is finished even when the one who asked has gone.

        Raises:
            StorageFull: it is `durable` and cannot be written.
        """

        async def work() -> ClusterState:
            if entries := make():
                append = partial(self._log.append, entries, durable=durable)
                self._set(await self._on_disk(append))
            return self.state

        return await self._write(work)

    async def reset(self, state: ClusterState) -> None:
        """Take `state` in the place of everything.

        Raises:
            StorageFull: it cannot be written.
        """

        async def work() -> ClusterState:
            await self._on_disk(partial(self._log.reset, state))
            self._resets, self._reset_at = self._resets + 1, state.index
            self._set(state)
            return state

        await self._write(work)

    async def settled(self) -> None:
        """Return when what was being written is."""
        async with self._lock:
            pass

    async def holds(self, index: int, term: Term) -> bool:
        """Whether the log up to `index` is the one that ends in an entry of `term` there."""
        return await self._on_disk(partial(self._log.holds, index, term))

    async def events(self, since: int, limit: int) -> list[Entry]:
        """Entries after `since`, oldest first; those before the last snapshots are gone."""
        return await self._on_disk(partial(self._log.read, since, limit))

    async def follow(self, since: int) -> AsyncGenerator[list[Entry]]:
        """Every entry after `since`, in batches, for ever. Where another log takes the place of
        this one, it goes on with what comes after that."""
        resets = self._resets
        while True:
            entries = await self.events(since, _BATCH)
            if self._resets != resets:
                resets, since = self._resets, self._reset_at
            elif entries:
                since = entries[-1].index
                yield entries
            else:
                await self.wait_for(partial(self._is_news, since, resets))

    def _is_news(self, index: int, resets: int, state: ClusterState) -> bool:
        return state.index > index or self._resets != resets

    async def wait_for(self, done: Callable[[ClusterState], bool]) -> ClusterState:
        """The first state, from now on, for which `done` is true."""
        while not done(self.state):
            await self._changed.wait()
        return self.state

    async def _write(self, work: Callable[[], Awaitable[ClusterState]]) -> ClusterState:
        async def in_turn() -> ClusterState:
            async with self._lock:
                return await work()

        task = asyncio.create_task(in_turn())
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)
        return await asyncio.shield(task)

    async def _on_disk(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._disk, work)

    def _set(self, state: ClusterState) -> None:
        self.state = state
        self._changed.set()
        self._changed = asyncio.Event()
        self._on_change(state)
