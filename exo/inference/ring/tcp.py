"""The ring over TCP: one link from each rank to the next, watched by heartbeats; encrypted, unless
that was given up.

Data goes one way, so each link has one reader and one writer. Who hears nothing from the rank
before for `SILENCE` seconds, or whose link breaks, closes both its links; so does the next one in
turn, and within a moment the whole ring is down. Each then rests before it connects again, or the
wave of closing would find links to close for ever. Rank 0 sends a FORM frame round the ring when
its own links stand; when that has come back, all do.

    keeper     dials the next rank, says hello, then sends a heartbeat when nothing else was sent
    acceptor   takes connections; a thread for each shakes hands, and becomes its reader
"""

import contextlib
import logging
import random
import socket
import ssl
import threading
import time

from exo.errors import RingError
from exo.inference.ring.credentials import Credentials
from exo.inference.ring.events import Post, RingDown, RingFrame, RingSpec, RingUp
from exo.inference.ring.frames import Frame, Kind
from exo.inference.ring.links import Link, accept, dial

HEARTBEAT = 0.4
SILENCE = 2.0
# Between two attempts to reach the next rank.
_PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0)
# Seconds of rest after a fall, doubled with each that comes soon after the one before.
_REST, _LONGEST_REST, _STEADY = 0.1, 1.6, 5.0
# Strangers may connect too; they are not let to use up the process's threads.
_MAX_HANDSHAKES = 16

log = logging.getLogger(__name__)


class TcpRing:
    """One rank's two links. It listens on `port` of `host`; `credentials` prove who it is."""

    def __init__(self, rank: int, host: str, post: Post, *, encrypted: bool = True) -> None:
        self.rank = rank
        self.credentials = Credentials(encrypted=encrypted)
        self._post = post
        both = host == "::" and socket.has_dualstack_ipv6()
        if host == "::" and not both:
            host = "0.0.0.0"  # noqa: S104  every address was asked for, and there are no others
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family, dualstack_ipv6=both)
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Condition()
        self._writing = threading.Lock()
        self._handshakes = threading.BoundedSemaphore(_MAX_HANDSHAKES)
        self._spec: RingSpec | None = None
        self._life = 0
        self._up = False
        self._next: Link | None = None
        self._previous: Link | None = None
        # Links that were written to, to be closed when nobody writes any more.
        self._over: list[Link] = []
        self._closed = False
        self._falls = 0
        self._rest_until = 0.0
        self._up_since = 0.0
        self._sent = 0.0
        self._trouble = ""
        for work, name in ((self._keep, "keeper"), (self._accept, "acceptor")):
            threading.Thread(target=work, name=f"ring {name}", daemon=True).start()

    def connect(self, spec: RingSpec) -> None:
        """Form this ring, again and again if need be, until another one is to be formed."""
        with self._lock:
            if self._spec is None or self._spec.epoch != spec.epoch:
                self._spec = spec
                self._falls = 0
                self._end("The ring is formed anew.")

    @property
    def local_hosts(self) -> tuple[str, str]:
        with self._lock:
            if not self._up or self._previous is None or self._next is None:
                raise RingError("The ring is down.")
            return self._previous.local_host, self._next.local_host

    def allow_silence(self, seconds: float) -> None:
        with self._lock:
            if self._previous is not None:
                self._previous.silent_until = time.monotonic() + seconds

    def send(self, frame: Frame, life: int) -> None:
        with self._lock:
            link = self._next if self._up and self._life == life else None
        if link is None:
            raise RingError("The ring is down.")
        self._write(link, frame, life)

    def give_up(self, reason: str) -> None:
        with self._lock:
            self._end(reason)

    def close(self) -> None:
        """Form no ring any more."""
        with self._lock:
            self._closed = True
            self._end("It was closed.")
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # Wakes the acceptor.
        self._listener.close()

    # The next rank.

    def _keep(self) -> None:
        attempt = 0
        while True:
            with self._lock:
                self._lock.wait_for(lambda: self._spec is not None or self._closed)
                spec, life = self._spec, self._life
                linked, closed = self._next is not None, self._closed
                over, self._over = self._over, []
            with self._writing:
                for link in over:
                    link.close()
            if spec is None or closed:
                return
            if not linked:
                self._pause(self._rest_until - time.monotonic(), life)
                if self._life != life or self._dial(spec, life):
                    attempt = 0
                else:
                    self._pause(_PAUSES[min(attempt, len(_PAUSES) - 1)], life)
                    # Another formation of the ring is tried at once, and often.
                    attempt = attempt + 1 if self._life == life else 0
                continue
            self._pause(HEARTBEAT, life)
            self._beat(life)

    def _dial(self, spec: RingSpec, life: int) -> bool:
        try:
            link = dial(self.credentials, spec, self.rank, SILENCE)
        except (OSError, RingError) as error:
            self._troubled(f"Rank {spec.following.rank} cannot be reached: {error}", life)
            return False
        with self._lock:
            if self._life != life or self._spec is not spec:
                link.close()
                return True
            self._next = link
            self._sent = time.monotonic()
            self._begin()
            self._lock.notify_all()
        return True

    def _beat(self, life: int) -> None:
        with self._lock:
            link = self._next if self._life == life else None
        if link is not None and time.monotonic() - self._sent >= HEARTBEAT * 0.9:
            with contextlib.suppress(RingError):
                self._write(link, Frame(Kind.PING), life)

    def _write(self, link: Link, frame: Frame, life: int) -> None:
        try:
            with self._writing:
                link.write(frame)
                self._sent = time.monotonic()
        except (OSError, ValueError) as error:
            reason = f"The link to the next rank broke: {error}"
            self._lose(reason, life)
            raise RingError(reason) from error

    def _pause(self, seconds: float, life: int) -> None:
        """Wait, but not beyond the end of this life of the ring."""
        with self._lock:
            if seconds > 0:
                self._lock.wait_for(lambda: self._life != life, seconds)

    # The rank before.

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError as error:
                if self._closed:
                    return
                log.warning("A connection to the ring could not be taken: %s", error)
                continue
            if not self._handshakes.acquire(blocking=False):
                connection.close()
                continue
            threading.Thread(
                target=self._welcome, args=(connection,), name="ring reader", daemon=True
            ).start()

    def _welcome(self, connection: socket.socket) -> None:
        with self._lock:
            spec = self._spec
        try:
            link = accept(self.credentials, spec, connection, SILENCE)
        except (OSError, RingError, ssl.SSLError) as error:
            log.info("A connection to the ring was refused: %s", error)
            connection.close()
            return
        finally:
            self._handshakes.release()
        with self._lock:
            if self._spec is not spec:
                link.close()
                return
            if self._previous is not None:
                # It would not connect again if it did not hold the ring for broken.
                self._end("The rank before connected anew.")
            self._previous, life = link, self._life
            self._begin()
        self._read(link, life)

    def _read(self, link: Link, life: int) -> None:
        try:
            while True:
                frame = link.read()
                if frame.kind is Kind.FORM:
                    self._formed(life)
                elif frame.kind is not Kind.PING:
                    self._post(RingFrame(life, frame))
        except TimeoutError:
            self._lose(f"The rank before said nothing for {SILENCE:.0f} s.", life)
        except (OSError, ValueError, RingError) as error:
            self._lose(f"The link to the rank before broke: {error}", life)
        finally:
            link.close()

    # Both.

    def _begin(self) -> None:
        """Rank 0 sends the first frame round when both its links stand. With the lock held."""
        if self.rank == 0 and self._next is not None and self._previous is not None:
            link, life = self._next, self._life
            threading.Thread(
                target=self._send_form, args=(link, life), name="ring former", daemon=True
            ).start()

    def _send_form(self, link: Link, life: int) -> None:
        with contextlib.suppress(RingError):
            self._write(link, Frame(Kind.FORM), life)

    def _formed(self, life: int) -> None:
        """The frame that says that the ring stands has come: pass it on, if it is not back."""
        with self._lock:
            self._lock.wait_for(lambda: self._next is not None or self._life != life)
            link = self._next
            if self._life != life or link is None:
                raise RingError("the ring is formed anew")
            self._up = True
            self._up_since = time.monotonic()
            self._trouble = ""
            self._post(RingUp(life))
        if self.rank != 0:
            self._write(link, Frame(Kind.FORM), life)

    def _lose(self, reason: str, life: int) -> None:
        with self._lock:
            if self._life == life:
                self._end(reason)

    def _end(self, reason: str) -> None:
        """Begin another life, without links. With the lock held."""
        was_up, life = self._up, self._life
        for link in (self._next, self._previous):
            if link is not None:
                link.shut()
        if self._next is not None:
            self._over.append(self._next)
        if self._next is not None or self._previous is not None:
            self._rest(steady=was_up and time.monotonic() - self._up_since > _STEADY)
        self._next = self._previous = None
        self._up = False
        self._life += 1
        self._lock.notify_all()
        if was_up:
            self._post(RingDown(life, reason))

    def _rest(self, *, steady: bool) -> None:
        self._falls = 0 if steady else self._falls
        rest = min(_REST * 2**self._falls, _LONGEST_REST)
        self._rest_until = time.monotonic() + rest * random.uniform(0.7, 1.3)  # noqa: S311
        self._falls = min(self._falls + 1, 10)

    def _troubled(self, reason: str, life: int) -> None:
        """Say why the ring cannot be formed, once."""
        with self._lock:
            if self._life == life and self._trouble != reason:
                self._trouble = reason
                self._post(RingDown(life, reason))
