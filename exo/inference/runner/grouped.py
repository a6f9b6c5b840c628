"""A rank whose ring has a group of `mx.distributed` beside it.

The ring's own links carry what is small, and notice when a rank is lost: it may be that this rank
then waits in MLX for the lost one, for ever. So a thread of the ring tells the daemon, which ends
this process and starts another; only a process that is in no group yet forms its ring again.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Generator

import psutil

from exo.errors import RingError
from exo.inference.engine import RingEngine
from exo.inference.messages import Failed, Load, RingLost, WireError
from exo.inference.ring.events import RingDown, RingEvent
from exo.inference.ring.frames import Frame, Kind
from exo.inference.ring.gathering import Address, first, told
from exo.inference.runner.link import Link, leave
from exo.inference.runner.ranked import RankedRunner
from exo.inference.runner.service import Service

# While a rank joins its group it can say nothing: MLX keeps Python's lock.
JOIN_SECONDS = 20.0
# The last rank is the first that connects. One that finds nobody yet waits a whole second, and MLX
# has no event for that the others listen.
_HEAD_START = 0.1
_END_SECONDS = 5.0


class GroupedRunner(RankedRunner):
    """One rank, from its first message to its end. It loads once, when its group is formed."""

    def __init__(self, link: Link, engine: RingEngine, load: Load, service: Service) -> None:
        self._joined = self._started = self._left = False
        self._own: Address | None = None
        super().__init__(link, engine, load, service)

    def _post(self, event: RingEvent) -> None:
        """From a thread of the ring."""
        if self._joined and isinstance(event, RingDown):
            if not self._left:
                self._fail(event.reason)
        else:
            super()._post(event)

    def _fail(self, reason: str) -> None:
        error = RingError(f"The ring of this model's nodes broke: {reason}", retry_after=2)
        self._link.send(Failed(error=WireError.of(error)))
        # The daemon ends this process at once, unless it sleeps.
        end = threading.Timer(_END_SECONDS, leave, (1,))
        end.daemon = True
        end.start()

    def leave(self) -> None:
        # The daemon is told why by whoever has this rank leave.
        self._left = True
        super().leave()

    def _waits(self) -> bool:
        return not self._started or super()._waits()

    def _step(self) -> None:
        if self._started:
            super()._step()

    def _begin(self, life: int) -> None:
        self._life = life
        with self._ring_trouble():
            self._own = _free_address(*self._ring.local_hosts)
            if self._head:
                self._ring.send(first(self._own), life)

    def _receive(self, life: int, frame: Frame) -> None:
        match frame.kind:
            case Kind.ADDRESSES:
                with self._ring_trouble():
                    addresses = self._gather(life, frame)
                if addresses is not None:
                    self._join(life, addresses)
            case Kind.LOADED:
                self._all_loaded(life, frame)
            case _:
                super()._receive(life, frame)

    def _gather(self, life: int, frame: Frame) -> tuple[Address, ...] | None:
        """The addresses of all ranks, once they are known."""
        if self._own is None or self._joined:
            raise RingError("Addresses came when none are due.")
        found = told(frame, self._load.rank, self._load.size, self._own)
        if found.send is not None:
            self._ring.send(found.send, life)
        return found.addresses

    def _join(self, life: int, addresses: tuple[Address, ...]) -> None:
        self._joined = True
        self._ring.allow_silence(JOIN_SECONDS)
        if self._load.rank == self._load.size - 1:
            time.sleep(_HEAD_START)
        self._engine.join(self._load, addresses)
        self._load_layers()
        with self._ring_trouble():
            if self._head:
                self._ring.send(Frame(Kind.LOADED), life)

    def _all_loaded(self, life: int, frame: Frame) -> None:
        """Rank 0 begins only now: it would wait in MLX for those that load."""
        self._ring.allow_silence(0)
        self._start(life)
        self._started = True
        if not self._head:
            with self._ring_trouble():
                # The last rank's goes to rank 0.
                self._ring.send(frame, life)

    @contextlib.contextmanager
    def _ring_trouble(self) -> Generator[None]:
        try:
            yield
        except RingError as error:
            self._give_up(error)

    def _end(self, reason: str) -> None:
        self._life = None
        if self._joined:  # It broke at the moment when this rank joined.
            self._fail(reason)
        else:
            self._link.send(RingLost(reason=reason))


def _free_address(host: str, after: str) -> Address:
    """A port of this host that nobody listens on, and the interfaces of both addresses.

    Raises:
        RingError: there is none, or it is an IPv6 address.
    """
    if ":" in host:
        raise RingError(f"mx.distributed has no links over IPv6, and this rank is at {host}.")
    try:
        with socket.create_server((host, 0)) as listener:
            port: int = listener.getsockname()[1]
    except OSError as error:
        raise RingError(f"No port of {host} is free: {error}.") from error
    return Address(host, port, _interface(host), _interface(after))


def _interface(host: str) -> str:
    for name, addresses in psutil.net_if_addrs().items():
        if any(address.address == host for address in addresses):
            return name
    return ""
