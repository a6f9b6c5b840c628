"""Processes with a core each, from their first moment: they count their cores when they load, and
start as many threads."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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
