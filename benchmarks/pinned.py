"""Runners with a core each, from their first moment: they count their cores when they load, and
start as many threads."""

import os
from typing import Any

from tests.inference.ranks import Group, Rank, Ranks


class PinnedRanks(Ranks):
    """Runners inherit the core of the process that starts them; rank 0 has the core `first`. Needs
    Linux."""

    def __init__(self, *shape: Any, first: int = 0, **load: Any) -> None:
        super().__init__(*shape, **load)
        self._first = first

    async def _start(self, rank: int, environment: dict[str, str]) -> Rank:
        everywhere = os.sched_getaffinity(0)
        cores = sorted(everywhere)
        os.sched_setaffinity(0, {cores[(self._first + rank) % len(cores)]})
        try:
            return await super()._start(rank, environment)
        finally:
            os.sched_setaffinity(0, everywhere)


class PinnedGroup(PinnedRanks, Group):
    pass
