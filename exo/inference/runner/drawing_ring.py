"""A runner that is one rank of several of an image model: it joins the ring, loads its blocks, and
computes what comes round.

Rank 0 has the requests. Within a step it waits for the others, and nothing else is heeded until
they have answered or the ring is gone.
"""

from collections.abc import Sequence

from exo.errors import RingError
from exo.inference.image.engine import RingImageEngine
from exo.inference.image.service import DrawService
from exo.inference.messages import Cancel, Draw, Load
from exo.inference.ring.arrivals import Arrivals
from exo.inference.ring.events import RingEvent, RingFrame
from exo.inference.runner.alone import load_layers, warm_up
from exo.inference.runner.link import Asked, Link
from exo.inference.runner.member import Member
from exo.inference.types import Wire


class DrawingRank(Member[RingImageEngine, DrawService]):
    """One rank of an image model."""

    def __init__(
        self, link: Link, engine: RingImageEngine, load: Load, service: DrawService
    ) -> None:
        self._arrivals = Arrivals()
        super().__init__(link, engine, load, service)

    def _waits(self) -> bool:
        return not self._head or self._life is None or not self._service.busy

    def _step(self) -> None:
        if not self._waits():
            self._link.send(*self._service.step())

    def _asked(self, asked: Asked) -> Sequence[Wire]:
        if isinstance(asked.message, Draw | Cancel):
            return self._service.handle(asked.message)
        return ()

    def _post(self, event: RingEvent) -> None:
        """From a thread of the ring. What comes to rank 0 is waited for within a step."""
        if self._head:
            self._arrivals.put(event)
        if not self._head or not isinstance(event, RingFrame):
            super()._post(event)

    def _begin(self, life: int) -> None:
        if self._memory is None:
            self._memory = load_layers(self._link, self._engine, self._load)
        self._life = life
        self._engine.start(self._ring, life, lambda: self._arrivals.wait(life))
        if self._head:
            try:
                warm_up(self._engine, self._load)
            except RingError:
                return  # Its end comes as an event.
        self._ready()
