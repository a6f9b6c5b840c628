"""One link of the ring: TLS on a TCP connection, frames in one direction, a hello at its start.

On a cable that nobody else can reach it may do without TLS. Then the hello is all that a neighbour
proves: it names the formation of the ring, which only the nodes of the cluster know.
"""

import contextlib
import hmac
import socket
import ssl
import time

import msgpack

from exo.errors import RingError
from exo.inference.ring.credentials import Credentials, is_of
from exo.inference.ring.events import RingSpec
from exo.inference.ring.frames import HEADER, Frame, Kind, read_header

# The first byte of a TLS connection, which is that of no frame.
_TLS = 0x16
# A stranger may send what it likes before it is known; a hello is short.
_MAX_HELLO = 1024
# Less than this is read with what follows it.
_SMALL = 16 * 1024


class Link:
    """A connection with a neighbour. One thread reads or writes it, another may shut it.

    Raises, from `read` and `write`: OSError when it breaks (TimeoutError when nothing came or went
    for as long as the socket's timeout), RingError when what came is no frame.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        # What came beyond what was asked for: a small frame comes whole, in one call.
        # It lies there from `_at` to `_end`.
        self._buffer = memoryview(bytearray(_SMALL))
        self._at = self._end = 0
        # Until this time of the monotonic clock nothing need come.
        self.silent_until = 0.0

    def read(self, limit: int | None = None) -> Frame:
        """Block for the next frame; with `limit`, one of at most so many bytes."""
        kind, body, tensors = read_header(self._take(HEADER.size))
        if limit is not None and body + tensors > limit:
            raise RingError(f"A frame of {body + tensors} bytes came where none is due.")
        content = bytes(self._take(body))
        return Frame(kind, content, (memoryview(self._take(tensors)),) if tensors else ())

    def write(self, frame: Frame) -> None:
        """Write a frame."""
        for part in frame.parts():
            # As a rule it goes at once, and `sendall` of TLS takes a third longer to say so.
            sent = self._connection.send(part)
            if sent < len(part):
                self._connection.sendall(memoryview(part)[sent:])

    @property
    def local_host(self) -> str:
        """The address of this side; an IPv4 one that is written as IPv6 is told as IPv4."""
        host: str = self._connection.getsockname()[0]
        return host.removeprefix("::ffff:")

    def shut(self) -> None:
        """Break the connection: whoever reads or writes it is woken."""
        with contextlib.suppress(OSError):
            # Below TLS: a farewell would have to wait for the one who reads or writes.
            socket.socket.shutdown(self._connection, socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the connection back to the system."""
        self.shut()
        self._connection.close()

    def _take(self, size: int) -> bytes | bytearray:
        """The next bytes, so many."""
        begin, self._at = self._at, self._at + size
        if self._at <= self._end:
            return self._buffer[begin : self._at].tobytes()
        return self._take_more(begin, size)

    def _take_more(self, begin: int, size: int) -> bytearray:
        """Those that lie in the buffer from `begin` on, and those that come after them."""
        taken = bytearray(size)
        done = self._end - begin
        taken[:done] = self._buffer[begin : self._end]
        view = memoryview(taken)
        self._at = self._end = 0
        while done < size:
            if size - done >= _SMALL:
                done += self._receive(view[done:])
                continue
            self._end = self._receive(self._buffer)
            self._at = min(self._end, size - done)
            view[done : done + self._at] = self._buffer[: self._at]
            done += self._at
        return taken

    def _receive(self, into: memoryview) -> int:
        while True:
            try:
                count = self._connection.recv_into(into)
            except TimeoutError:
                if time.monotonic() < self.silent_until:
                    continue
                raise
            if not count:
                raise ConnectionResetError("it was closed")
            return count


def dial(credentials: Credentials, spec: RingSpec, rank: int, patience: float) -> Link:
    """Connect to the next rank and say which rank of which ring this is.

    Raises:
        OSError: it cannot be reached, or is not who it should be.
    """
    context = credentials.context(spec.following.certificate, server=False)
    connection = _first(spec.following.hosts, spec.following.port, patience)
    link = _link(context, connection, spec.following.certificate, patience, server=False)
    try:
        link.write(Frame(Kind.HELLO, msgpack.packb({"epoch": spec.epoch, "rank": rank})))
    except OSError:
        link.close()
        raise
    return link


def accept(
    credentials: Credentials, spec: RingSpec | None, connection: socket.socket, patience: float
) -> Link:
    """Take a connection that should be the rank before.

    Raises:
        OSError, RingError: it is not.
    """
    if spec is None:
        raise RingError("no ring is to be formed yet")
    context = credentials.context(spec.previous.certificate, server=True)
    _check_agreed(connection, patience, encrypted=context is not None)
    link = _link(context, connection, spec.previous.certificate, patience, server=True)
    expected = msgpack.packb({"epoch": spec.epoch, "rank": spec.previous.rank})
    try:
        hello = link.read(limit=_MAX_HELLO)
        if hello.kind is not Kind.HELLO or not hmac.compare_digest(hello.body, expected):
            raise RingError("the rank before is of another ring")
    except (OSError, RingError):
        link.close()
        raise
    return link


def _first(hosts: list[str], port: int, patience: float) -> socket.socket:
    """A connection to the first of the hosts that takes one."""
    failure: OSError = ConnectionRefusedError("it has no address")
    for host in hosts:
        try:
            return socket.create_connection((host, port), timeout=patience)
        except OSError as error:
            failure = error
    raise failure


def _check_agreed(connection: socket.socket, patience: float, *, encrypted: bool) -> None:
    """See that the other end encrypts if this one does.

    Raises:
        OSError: it says nothing.
        RingError: it does not.
    """
    connection.settimeout(patience)
    try:
        first = connection.recv(1, socket.MSG_PEEK)
    except OSError:
        connection.close()
        raise
    if first and (first[0] == _TLS) != encrypted:
        connection.close()
        does, this = ("does not", "does") if encrypted else ("does", "does not")
        raise RingError(
            f"the rank before {does} encrypt its links, and this one {this}",
            hint="Give all nodes of an instance the same ring_encryption.",
        )


def _link(
    context: ssl.SSLContext | None,
    connection: socket.socket,
    certificate: str,
    patience: float,
    *,
    server: bool,
) -> Link:
    connection.settimeout(patience)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if context is None:
        return Link(connection)
    try:
        wrapped = context.wrap_socket(connection, server_side=server)
    except OSError:
        connection.close()
        raise
    if not is_of(wrapped, certificate):
        wrapped.close()
        raise RingError("it shows another certificate than was announced")
    return Link(wrapped)
