"""What every rank of a ring does, whatever it computes: it says where it is found, takes in what
comes, and says how the ring is.

When the ring breaks, requests end with an error; what was loaded stays, and the work goes on when
the ring stands again.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, NoReturn, Protocol, TypeVar

from exo.errors import ExoError, RingError
from exo.inference.messages import UNENCRYPTED, Connect, Listening, Load, Ready, RingLost
from exo.inference.ring.events import RingDown, RingEvent, RingFrame, RingUp
from exo.inference.ring.frames import Frame
from exo.inference.ring.tcp import TcpRing
from exo.inference.runner.link import Asked, Event, Link
from exo.inference.types import Wire


class RankEngine(Protocol):
    """What a ring asks of an engine of any kind."""

    def facts(self, load: Load) -> dict[str, str]: ...
    def stop(self) -> None: ...
    def receive(self, frame: Frame) -> None: ...


class Requests(Protocol):
    """The requests of rank 0."""

    def fail_all(self, error: ExoError) -> Sequence[Wire]: ...


E = TypeVar("E", bound=RankEngine)
S = TypeVar("S", bound=Requests)


class Member(ABC, Generic[E, S]):
    """One rank, from its first message to its end. Rank 0 has the requests (`service`)."""

    def __init__(self, link: Link, engine: E, load: Load, service: S) -> None:
        self._link = link
        self._engine = engine
        self._load = load
        self._service = service
        self._head = load.rank == 0
        self._ring = TcpRing(load.rank, load.ring_host, self._post, encrypted=load.ring_encrypted)
        self._memory: int | None = None
        self._life: int | None = None

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
                if link.inbox.empty():
                    self._rest()
                event = link.inbox.get()
                link.busy = True
                fresh = self._handle(event) or fresh
                link.steps += 1
                link.busy = False
            link.busy = True
            try:
                self._step()
            except RingError as error:
                self._give_up(error)
            link.steps += 1

    @abstractmethod
    def _waits(self) -> bool:
        """Whether a step would do nothing before something comes."""

    @abstractmethod
    def _step(self) -> None:
        """Compute, if this is rank 0 and there is something to compute."""

    def _rest(self) -> None:
        """Nothing has come, and nothing is to be done."""

    @abstractmethod
    def _asked(self, asked: Asked) -> Sequence[Wire]:
        """Take in a request or a cancellation."""

    @abstractmethod
    def _begin(self, life: int) -> None:
        """The ring stands."""

    def _handle(self, event: Event) -> bool:
        """Take in an event; whether rank 0 may have something to compute now."""
        match event:
            case RingFrame(life=life, frame=frame):  # First: everyone waits for it.
                if life == self._life:
                    self._receive(life, frame)
                    return True
            case Asked(message=Connect(ring=ring)):
                self._ring.connect(ring)
            case Asked():
                self._link.send(*self._asked(event))
                return True
            case RingUp(life=life):
                self._begin(life)
                return True
            case RingDown(reason=reason):
                self._end(reason)
        return False

    def _post(self, event: RingEvent) -> None:
        """From a thread of the ring."""
        self._link.inbox.put(event)

    def _receive(self, life: int, frame: Frame) -> None:
        del life  # The engine has been told.
        try:
            self._engine.receive(frame)
        except RingError as error:
            self._give_up(error)

    def _ready(self) -> None:
        self._link.send(Ready(memory=self._memory or 0))

    def _end(self, reason: str) -> None:
        if self._life is not None:
            self._life = None
            error = RingError(f"The ring of this model's nodes broke: {reason}", retry_after=2)
            self._link.send(*self._service.fail_all(error))
            self._engine.stop()
        self._link.send(RingLost(reason=reason))

    def _give_up(self, error: RingError) -> None:
        """Give up a ring in which something went wrong; its end comes as an event."""
        self._ring.give_up(error.message)
