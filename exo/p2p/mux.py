"""Many requests and streams over one channel: sans-IO.

Bytes in, events out (`receive`); calls in, bytes out (`next_frame`). Each side numbers what it
opens, odd or even. A request is answered by one reply, a stream by any number of items and an end;
either by an error. A body larger than a frame goes in parts. Of requests that come in parts, a few
at a time are put together and the others wait, so that a peer cannot fill this node's memory.
"""

from collections import OrderedDict
from dataclasses import dataclass

from exo.errors import BodyTooLarge, ExoError, ProtocolError, QueueFull, to_wire
from exo.p2p.flow import Inbox, Outbox
from exo.p2p.frames import (
    MAX_NAME,
    MAX_PAYLOAD,
    Body,
    Frame,
    FrameType,
    Outbound,
    decode,
    pack,
    unpack,
    unpack_fields,
)
from exo.p2p.mux_events import (
    Called,
    Cancelled,
    Credited,
    Ended,
    Event,
    Failed,
    Item,
    Noticed,
    Opened,
    Ponged,
    Replied,
    SaidGoodbye,
    read_error,
)
from exo.p2p.outgoing import Outgoing

# How much of a request's body goes along with its first frame. Both sides keep to it.
FIRST_PART = 2**16
# Bytes of one body.
MAX_BODY = 16 * 2**20
# Bytes of replies that wait to be sent.
MAX_REPLYING = 4 * MAX_BODY
_MAX_TEXT = 4096
_MAX_CREDIT = 2**40
_ADMISSION_TYPES = frozenset(kind for kind in FrameType if kind < FrameType.REQUEST)
_LINK_TYPES = frozenset(FrameType)
_FINAL = frozenset({FrameType.REPLY, FrameType.ERROR, FrameType.END})


@dataclass(frozen=True)
class MuxLimits:
    """What one link may hold: open requests and streams of each side, to which both keep; bytes of
    one stream that are not taken yet; requests' bodies that are put together at once."""

    streams: int = 1024
    window: int = 2**20
    assemblies: int = 4


@dataclass(slots=True)
class _Stream:
    kind: FrameType  # REQUEST or OPEN
    method: str
    outbox: Outbox
    inbox: Inbox
    whole: bool = True  # or the request is still being put together
    replying: int = 0  # bytes of a reply that has not been sent


class Mux:
    """One side of a link. `dialer`: the side that opened the connection."""

    def __init__(self, *, dialer: bool, limits: MuxLimits | None = None) -> None:
        self._limits = limits or MuxLimits()
        self._mine: dict[int, _Stream] = {}
        self._theirs: dict[int, _Stream] = {}
        self._parity = 1 if dialer else 0
        self._last_mine = -1 if dialer else 0
        self._last_theirs = 0
        self._out = Outgoing()
        self._replying = 0
        # Requests that come in parts: with room for them, and waiting for it.
        self._assembling: set[int] = set()
        self._waiting: OrderedDict[int, None] = OrderedDict()

    # What this side wants.

    def request(self, method: str, body: Body) -> int:
        """Ask; the stream that the reply comes on.

        Raises:
            BodyTooLarge
            QueueFull: as many are open as the other side takes.
            ProtocolError: msgpack cannot carry the body.
        """
        return self._open(FrameType.REQUEST, method, body)

    def open(self, method: str, body: Body) -> int:
        """Open a stream that items come on. Raises like `request`."""
        return self._open(FrameType.OPEN, method, body)

    def cancel(self, stream: int) -> None:
        """Want no more of a request or stream of this side's."""
        if self._mine.pop(stream, None):
            self._out.forget(stream)
            # Or requests to a peer that does not read would pile up.
            if not self._out.retract(stream):
                self._out.urgent(FrameType.CANCEL, stream)

    def taken(self, stream: int, cost: int) -> None:
        """An item has been taken by whom it was for."""
        if found := self._mine.get(stream):
            found.inbox.taken(cost)
            self._out.credit(stream, found.inbox.grant())

    def reply(self, stream: int, body: Body) -> None:
        """Answer a request of the other side's.

        Raises:
            BodyTooLarge
            QueueFull: the other side does not read its replies.
            ProtocolError: msgpack cannot carry the body.
        """
        data = _pack(body)
        if self._replying + len(data) > MAX_REPLYING:
            raise QueueFull("Too many large replies wait to be read.", retry_after=1.0)
        if found := self._theirs.get(stream):
            found.replying = len(data)
            self._replying += len(data)
        self._send(stream, FrameType.REPLY, data)

    def item(self, stream: int, body: Body) -> None:
        """Send an item, best when it `has_room`.

        Raises:
            BodyTooLarge
            ProtocolError: msgpack cannot carry the body.
        """
        self._send(stream, FrameType.ITEM, _pack(body))

    def has_room(self, stream: int) -> bool:
        """Whether an item would go at once; also when nobody wants it any more."""
        found = self._theirs.get(stream)
        return found is None or found.outbox.has_room

    def end(self, stream: int) -> None:
        """There are no more items."""
        self._send(stream, FrameType.END)

    def fail(self, stream: int, error: ExoError) -> None:
        """Answer with an error, at once or after items."""
        wire = {k: v[:_MAX_TEXT] if isinstance(v, str) else v for k, v in to_wire(error).items()}
        self._send(stream, FrameType.ERROR, pack(wire))

    def notify(self, method: str, body: Body) -> bool:
        """Say something that has no answer; False if too much waits to be said already.

        Raises:
            BodyTooLarge: it does not fit in one frame.
            ProtocolError: msgpack cannot carry the body.
        """
        payload = pack([method, body])
        if len(payload) > MAX_PAYLOAD:
            raise BodyTooLarge(f"A notice of {len(payload)} bytes is too large.")
        return self._out.notice(payload)

    def ping(self, nonce: int) -> None:
        self._out.urgent(FrameType.PING, nonce)

    def goodbye(self, reason: str) -> None:
        """The last word, after what is urgent; requests and streams end here."""
        self._mine.clear()
        self._theirs.clear()
        self._out.close(pack(reason[:MAX_NAME]))

    def next_frame(self) -> Outbound | None:
        """The next frame to send, None if there is none now."""
        found = self._out.next()
        if found is None:
            return None
        kind, frame = found
        if kind in _FINAL:
            # Only now: until here it takes memory, and the other side counts it too.
            self._drop(frame.stream)
        return frame

    def _open(self, kind: FrameType, method: str, body: Body) -> int:
        data = _pack(body)
        if len(self._mine) >= self._limits.streams:
            raise QueueFull(
                f"{len(self._mine)} requests are open on one link.",
                hint="Try again when some of them are done.",
                retry_after=1.0,
            )
        self._last_mine += 2
        stream = self._last_mine
        opened = _Stream(kind, method, Outbox(0), Inbox(self._limits.window, MAX_BODY))
        self._mine[stream] = opened
        whole = len(data) <= FIRST_PART
        fields = [method[:MAX_NAME], self._limits.window, whole, data[:FIRST_PART]]
        self._out.urgent(kind, stream, pack(fields))
        if not whole:
            opened.outbox.put(FrameType.BODY, memoryview(data)[FIRST_PART:])
        return stream

    def _send(self, stream: int, kind: FrameType, payload: bytes = b"") -> None:
        if found := self._theirs.get(stream):
            found.outbox.put(kind, payload)
            self._out.turn(stream, found.outbox)

    # What has come.

    def receive(self, data: bytes | bytearray) -> list[Event]:
        """Take in one frame.

        Raises:
            ProtocolError: it is none, or not now. The link cannot go on.
        """
        frame = decode(data)
        if frame.type not in _LINK_TYPES:
            return []
        if frame.type in _ADMISSION_TYPES:
            raise ProtocolError("The other side introduces itself again.")
        match frame.type:
            case FrameType.REQUEST | FrameType.OPEN:
                return self._opened(FrameType(frame.type), frame)
            case FrameType.NOTICE:
                method, body, *_ = *unpack_fields(frame.payload, str), None
                return [Noticed(method, body)]
            case FrameType.PING:
                self._out.pong(frame.stream)
                return []
            case FrameType.PONG:
                return [Ponged(frame.stream)]
            case FrameType.GOODBYE:
                return [SaidGoodbye(str(unpack(frame.payload))[:MAX_NAME])]
            case _:
                return self._on_stream(frame)

    def _opened(self, kind: FrameType, frame: Frame) -> list[Event]:
        stream = frame.stream
        if stream % 2 == self._parity or stream <= self._last_theirs:
            raise ProtocolError("The other side opens a stream that cannot be.")
        if len(self._theirs) >= self._limits.streams:
            raise ProtocolError("The other side opens more streams than it may.")
        method, window, whole, body, *_ = unpack_fields(frame.payload, str, int, bool, bytes)
        if not 0 <= window <= _MAX_CREDIT or len(body) > FIRST_PART or len(method) > MAX_NAME:
            raise ProtocolError("The other side opens a stream with values that cannot be.")
        self._last_theirs = stream
        opened = _Stream(kind, method, Outbox(window), Inbox(0, MAX_BODY), whole)
        self._theirs[stream] = opened
        if whole:
            return [_begin(stream, opened, unpack(body))]
        opened.inbox.begin(body)
        self._waiting[stream] = None
        self._assemble()
        return []

    def _on_stream(self, frame: Frame) -> list[Event]:
        stream = frame.stream
        is_mine = stream % 2 == self._parity
        if not 0 < stream <= (self._last_mine if is_mine else self._last_theirs):
            raise ProtocolError("The other side speaks of a stream that nobody opened.")
        found = (self._mine if is_mine else self._theirs).get(stream)
        if found is None:
            return []  # It is over for this side, which the other could not know.
        if frame.type == FrameType.CREDIT:
            credit = unpack(frame.payload)
            if type(credit) is not int or not 0 < credit <= _MAX_CREDIT:
                raise ProtocolError("The other side gives credit that cannot be.")
            found.outbox.grant(credit)
            self._out.turn(stream, found.outbox)
            roomy: list[Event] = [] if is_mine else [Credited(stream)]
            return roomy
        return self._answered(found, frame) if is_mine else self._asked(found, frame)

    def _answered(self, found: _Stream, frame: Frame) -> list[Event]:
        stream = frame.stream
        match frame.type, found.kind:
            case FrameType.PART, _:
                found.inbox.put(frame.payload)
                self._out.credit(stream, found.inbox.grant())
                return []
            case FrameType.ITEM, FrameType.OPEN:
                return [Item(stream, *found.inbox.put_last(frame.payload))]
            case FrameType.REPLY, FrameType.REQUEST:
                event: Event = Replied(stream, unpack(found.inbox.put_last(frame.payload)[0]))
            case FrameType.END, FrameType.OPEN:
                event = Ended(stream)
            case FrameType.ERROR, _:
                event = Failed(stream, read_error(unpack(frame.payload)))
            case _:
                raise ProtocolError("The other side answers with what is no answer.")
        del self._mine[stream]
        self._out.forget(stream)
        return [event]

    def _asked(self, found: _Stream, frame: Frame) -> list[Event]:
        stream = frame.stream
        if frame.type == FrameType.CANCEL:
            self._drop(stream)
            return [Cancelled(stream)] if found.whole else []
        if found.whole:
            raise ProtocolError("The other side goes on with a request that was whole.")
        if frame.type == FrameType.PART:
            found.inbox.put(frame.payload)
            return []
        if frame.type != FrameType.BODY:
            raise ProtocolError("The other side asks with what is no question.")
        body, _ = found.inbox.put_last(frame.payload)
        found.whole = True
        self._assembling.discard(stream)
        self._assemble()
        return [_begin(stream, found, unpack(body))]

    def _drop(self, stream: int) -> None:
        """Be done with a stream of the other side's."""
        if found := self._theirs.pop(stream, None):
            self._replying -= found.replying
        self._out.forget(stream)
        self._waiting.pop(stream, None)
        self._assembling.discard(stream)
        self._assemble()

    def _assemble(self) -> None:
        """Make room for requests that wait for it."""
        while self._waiting and len(self._assembling) < self._limits.assemblies:
            stream, _ = self._waiting.popitem(last=False)
            self._assembling.add(stream)
            inbox = self._theirs[stream].inbox
            # Twice, since frames cost more than what they carry.
            inbox.widen(2 * MAX_BODY)
            self._out.credit(stream, inbox.grant())


def _begin(stream: int, opened: _Stream, body: Body) -> Event:
    if opened.kind == FrameType.REQUEST:
        return Called(stream, opened.method, body)
    return Opened(stream, opened.method, body)


def _pack(body: Body) -> bytes:
    data = pack(body)
    if len(data) > MAX_BODY:
        raise BodyTooLarge(
            f"{len(data)} bytes are too many for one message between nodes; {MAX_BODY} are the "
            "most.",
            hint="Send it as a stream of smaller items.",
        )
    return data
