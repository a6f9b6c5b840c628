"""A runner that is one rank of several: it joins the ring, loads, and computes what comes round.

When the ring breaks, caches are dropped as well.
"""

import time
from collections.abc import Sequence

from exo.inference.engine import WARM_UP, RingEngine
from exo.inference.messages import Cancel, Embed, Generate, Load, Progress
from exo.inference.runner.alone import load_layers, tell_drafts
from exo.inference.runner.link import Asked, Link
from exo.inference.runner.member import Member
from exo.inference.runner.service import Service
from exo.inference.types import Wire

STATS_SECONDS = 1.0


class RankedRunner(Member[RingEngine, Service]):
    """One rank of a model of text."""

    def __init__(self, link: Link, engine: RingEngine, load: Load, service: Service) -> None:
        super().__init__(link, engine, load, service)
        self._warming = False
        self._told = 0.0

    def _waits(self) -> bool:
        return not self._head or self._life is None or self._engine.waiting

    def _step(self) -> None:
        if not self._head or self._life is None:
            return
        if not self._warming:
            self._link.send(*self._service.step())
            self._tell_stats()
            return
        for sampled in self._engine.step():
            if sampled.sequence_id == WARM_UP.sequence_id and sampled.finish_reason:
                self._warming = False
                self._ready()
                self._link.send(self._service.load_stats)

    def _rest(self) -> None:
        self._engine.foresee()

    def _tell_stats(self) -> None:
        now = time.monotonic()
        if now - self._told >= STATS_SECONDS:
            self._told = now
            stats = self._engine.stats()
            self._link.send(stats.model_copy(update={"waiting": self._service.waiting}))

    def _asked(self, asked: Asked) -> Sequence[Wire]:
        if isinstance(asked.message, Generate | Embed | Cancel):
            return self._service.handle(asked.message, asked.prepared)
        return ()

    def _begin(self, life: int) -> None:
        self._load_layers()
        self._start(life)

    def _load_layers(self) -> None:
        if self._memory is None:
            self._memory = load_layers(self._link, self._engine, self._load)
            tell_drafts(self._link, self._engine)

    def _start(self, life: int) -> None:
        self._life = life
        self._engine.start(self._ring, life)
        if self._head:
            self._link.send(Progress(phase="warming", done=0, total=1))
            self._warming = True
            self._engine.add([WARM_UP])
        else:
            self._ready()
