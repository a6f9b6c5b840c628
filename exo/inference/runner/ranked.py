"""A runner that is one rank of several: it joins the ring, loads, and computes what comes round.

When the ring breaks, requests end with an error and the caches are dropped; the layers stay, and
the work goes on when the ring stands again.
"""

import contextlib
import time
from collections.abc import Generator
from typing import NoReturn

from exo.errors import RingError
from exo.inference.engine import WARM_UP, RingEngine
from exo.inference.messages import (
    UNENCRYPTED,
    Cancel,
    Connect,
    Generate,
    Listening,
    Load,
    Progress,
    Ready,
    RingLost,
)
from exo.inference.ring.events import RingDown, RingEvent, RingFrame, RingUp
from exo.inference.ring.frames import Frame
from exo.inference.ring.tcp import TcpRing
from exo.inference.runner.alone import load_layers, tell_drafts
from exo.inference.runner.link import Asked, Event, Link
from exo.inference.runner.service import Service

STATS_SECONDS = 1.0


class RankedRunner:
    """One rank, from its first message to its end. Rank 0 has the requests (`service`)."""

    def __init__(self, link: Link, engine: RingEngine, load: Load, service: Service) -> None:
        self._link = link
        self._engine = engine
        self._load = load
        self._service = service
        self._head = load.rank == 0
        self._ring = TcpRing(load.rank, load.ring_host, self._post, encrypted=load.ring_encrypted)
        self._memory: int | None = None
        self._life: int | None = None
        self._warming = False
        self._told = 0.0

    def announce(self) -> None:
        """Say where the rank before finds this one.

        Raises:
            ModelInvalid: the files are no model, or its layers cannot be cut there.
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
            fresh = False
            while (not fresh and self._waits()) or not link.inbox.empty():
                event = link.inbox.get()
                link.busy = True
                fresh = self._handle(event) or fresh
                link.steps += 1
                link.busy = False
            link.busy = True
            with self._ring_trouble():
                self._step()
            link.steps += 1

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

    def _tell_stats(self) -> None:
        now = time.monotonic()
        if now - self._told >= STATS_SECONDS:
            self._told = now
            stats = self._engine.stats()
            self._link.send(stats.model_copy(update={"waiting": self._service.waiting}))

    def _handle(self, event: Event) -> bool:
        """Take in an event; whether rank 0 may have something to compute now."""
        match event:
            case Asked(message=Connect(ring=ring)):
                self._ring.connect(ring)
            case Asked(message=Generate() | Cancel() as message, prepared=prepared):
                self._link.send(*self._service.handle(message, prepared))
                return True
            case RingFrame(life=life, frame=frame):
                if life == self._life:
                    self._receive(life, frame)
                    return True
            case RingUp(life=life):
                self._begin(life)
                return True
            case RingDown(reason=reason):
                self._end(reason)
            case _:
                pass
        return False

    def _post(self, event: RingEvent) -> None:
        """From a thread of the ring."""
        self._link.inbox.put(event)

    def _begin(self, life: int) -> None:
        self._load_layers()
        self._start(life)

    def _receive(self, life: int, frame: Frame) -> None:
        del life  # The engine has been told.
        with self._ring_trouble():
            self._engine.receive(frame)

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

    def _ready(self) -> None:
        self._link.send(Ready(memory=self._memory or 0))

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
