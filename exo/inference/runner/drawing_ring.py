"""A runner that is one rank of several of an image model: it joins the ring, loads its blocks, and
computes what comes round.

Rank 0 has the requests. Within a step it waits for the others, and nothing else is heeded until
they have answered or the ring is gone. When the ring breaks, requests end with an error; the blocks
stay, and the work goes on when the ring stands again.
"""

import contextlib
from collections.abc import Generator
from typing import NoReturn

from exo.errors import ModelInvalid, RingError
from exo.inference.image.engine import RingImageEngine
from exo.inference.image.service import DrawService
from exo.inference.messages import (
    UNENCRYPTED,
    Cancel,
    Connect,
    Draw,
    Listening,
    Load,
    Ready,
    RingLost,
)
from exo.inference.ring.arrivals import Arrivals
from exo.inference.ring.events import RingDown, RingEvent, RingFrame, RingUp
from exo.inference.ring.tcp import TcpRing
from exo.inference.runner.alone import BROKEN, load_layers
from exo.inference.runner.link import Asked, Event, Link, log


class DrawingRank:
    """One rank, from its first message to its end."""

    def __init__(
        self, link: Link, engine: RingImageEngine, load: Load, service: DrawService
    ) -> None:
        self._link = link
        self._engine = engine
        self._load = load
        self._service = service
        self._head = load.rank == 0
        self._arrivals = Arrivals()
        self._ring = TcpRing(load.rank, load.ring_host, self._post, encrypted=load.ring_encrypted)
        self._memory: int | None = None
        self._life: int | None = None

    def announce(self) -> None:
        """Say where the rank before finds this one.

        Raises:
            ModelInvalid: the files are no model.
        """
        links = "encrypted" if self._load.ring_encrypted else UNENCRYPTED
        self._link.send(
            Listening(
                port=self._ring.port,
                certificate=self._ring.credentials.certificate,
                facts={**self._engine.facts(self._load), "links": links},
            )
        )

    def leave(self) -> None:
        """Leave the ring for good, so that the others do not wait for what will not come."""
        self._ring.close()

    def serve_forever(self) -> NoReturn:
        """Sleep in the inbox until there is something to do."""
        link = self._link
        while True:
            link.busy = False
            while self._waits() or not link.inbox.empty():
                event = link.inbox.get()
                link.busy = True
                self._handle(event)
                link.steps += 1
                link.busy = False
            link.busy = True
            link.send(*self._service.step())
            link.steps += 1

    def _waits(self) -> bool:
        return not self._head or self._life is None or not self._service.busy

    def _handle(self, event: Event) -> None:
        match event:
            case Asked(message=Connect(ring=ring)):
                self._ring.connect(ring)
            case Asked(message=Draw() | Cancel() as message):
                self._link.send(*self._service.handle(message))
            case RingFrame(life=life, frame=frame):
                if life == self._life:
                    with self._ring_trouble():
                        self._engine.receive(frame)
            case RingUp(life=life):
                self._begin(life)
            case RingDown(reason=reason):
                self._end(reason)
            case _:
                pass

    def _post(self, event: RingEvent) -> None:
        """From a thread of the ring. What comes to rank 0 is waited for within a step."""
        if self._head:
            self._arrivals.put(event)
        if not self._head or not isinstance(event, RingFrame):
            self._link.inbox.put(event)

    def _begin(self, life: int) -> None:
        if self._memory is None:
            self._memory = load_layers(self._link, self._engine, self._load)
        self._life = life
        self._engine.start(self._ring, life, lambda: self._arrivals.wait(life))
        if self._head and not self._warm_up():
            return
        self._link.send(Ready(memory=self._memory))

    def _warm_up(self) -> bool:
        """Have all ranks compute once; whether the ring held. Its end comes as an event."""
        try:
            self._engine.warm_up()
        except RingError:
            return False
        except BROKEN as error:
            log.exception("Warming up failed.")
            raise ModelInvalid(
                f"The model at {self._load.path} cannot be computed: {error}."
            ) from error
        return True

    def _end(self, reason: str) -> None:
        if self._life is not None:
            self._life = None
            error = RingError(f"The ring of this model's nodes broke: {reason}", retry_after=2)
            self._link.send(*self._service.fail_all(error))
            self._engine.stop()
        self._link.send(RingLost(reason=reason))

    @contextlib.contextmanager
    def _ring_trouble(self) -> Generator[None]:
        """A ring in which something went wrong is given up; its end comes as an event."""
        try:
            yield
        except RingError as error:
            self._ring.give_up(error.message)
