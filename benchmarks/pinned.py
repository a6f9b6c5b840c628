"""Processes with a core each, from their first moment: they count their cores when they load, and
start as many threads."""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from exo.device.blas import blas_environment
from tests.inference.ranks import Group, Rank, Ranks


@contextmanager
def on_core(number: int) -> Iterator[None]:
    """What is started meanwhile inherits this core. Needs Linux."""
    everywhere = os.sched_getaffinity(0)
    cores = sorted(everywhere)
    os.sched_setaffinity(0, {cores[number % len(cores)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, everywhere)


def one_thread(folder: Path) -> dict[str, str]:
    """The environment of a runner that has one core. More threads would wait for each other."""
    return {**blas_environment(folder), "OPENBLAS_NUM_THREADS": "1"}


class PinnedProcesses:
    """Processes that are no runners, with a core each, and a pipe to each (`controls`)."""

    def __init__(self) -> None:
        # One that is forked would have the threads' state of this process and not the threads.
        self.context = multiprocessing.get_context("spawn")
        self.controls: list[Connection] = []
        self._processes: list[Any] = []

    def start(self, serve: Callable[..., None], *args: Any) -> None:
        """Have one more process call this, with the other end of its pipe as the last argument."""
        ours, theirs = self.context.Pipe()
        process = self.context.Process(target=serve, args=(*args, theirs), daemon=True)
        with on_core(len(self._processes)):
            process.start()
        # Else nobody would be told when it ends.
        theirs.close()
        self._processes.append(process)
        self.controls.append(ours)

    def stop(self) -> None:
        for process in self._processes:
            process.terminate()
            process.join()


class PinnedRanks(Ranks):
    """Runners with a core each; rank 0 has the core `first`."""

    def __init__(self, *shape: Any, first: int = 0, **load: Any) -> None:
        super().__init__(*shape, **load)
        self._first = first

    async def _start(self, rank: int, environment: dict[str, str]) -> Rank:
        with on_core(self._first + rank):
            return await super()._start(rank, environment)


class PinnedGroup(PinnedRanks, Group):
    pass
