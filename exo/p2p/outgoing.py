"""In which order frames leave: pure.

First what is short and urgent, in order; then credit; then the streams take turns, frame by frame,
each as far as its receiver has room.
"""

from collections import OrderedDict, deque

from exo.errors import ProtocolError
from exo.p2p.flow import Outbox
from exo.p2p.frames import FrameType, Outbound, outbound, pack
from exo.p2p.transport import Buffer

# What waits to be sent. Notices beyond are dropped; who pings more is not reading.
MAX_NOTICES = 1024
MAX_NOTICE_BYTES = 8 * 2**20
MAX_PONGS = 64
_OPENING = frozenset({FrameType.REQUEST, FrameType.OPEN})


class Outgoing:
    """The frames of one link that wait to be sent."""

    def __init__(self) -> None:
        self._urgent: deque[tuple[FrameType, int, Buffer]] = deque()
        self._credits: OrderedDict[int, int] = OrderedDict()
        self._turns: OrderedDict[int, Outbox] = OrderedDict()
        self._notices = 0
        self._notice_bytes = 0
        self._pongs = 0
        self._last: Buffer | None = None

    def urgent(self, kind: FrameType, stream: int = 0, payload: Buffer = b"") -> None:
        self._urgent.append((kind, stream, payload))

    def notice(self, payload: Buffer) -> bool:
        """False if too many wait already."""
        size = self._notice_bytes + len(payload)
        if self._notices >= MAX_NOTICES or size > MAX_NOTICE_BYTES:
            return False
        self._notices += 1
        self._notice_bytes = size
        self.urgent(FrameType.NOTICE, 0, payload)
        return True

    def pong(self, nonce: int) -> None:
        """Answer a ping.

        Raises:
            ProtocolError: too many answers wait already.
        """
        if self._pongs >= MAX_PONGS:
            raise ProtocolError("The other side pings and does not read the answers.")
        self._pongs += 1
        self.urgent(FrameType.PONG, nonce)

    def credit(self, stream: int, credit: int) -> None:
        """Let the other side send so much more; amounts add up while they wait."""
        if credit:
            self._credits[stream] = self._credits.get(stream, 0) + credit

    def turn(self, stream: int, outbox: Outbox) -> None:
        """Give a stream its turns, if it has something that may go."""
        if outbox.ready:
            self._turns[stream] = outbox

    def retract(self, stream: int) -> bool:
        """Take back a request that has not been sent; False if it has."""
        for frame in self._urgent:
            if frame[1] == stream and frame[0] in _OPENING:
                self._urgent.remove(frame)
                return True
        return False

    def forget(self, stream: int) -> None:
        """Send no more of a stream."""
        self._credits.pop(stream, None)
        self._turns.pop(stream, None)

    def close(self, goodbye: Buffer) -> None:
        """Send what is urgent and then this, and no more."""
        self._credits.clear()
        self._turns.clear()
        self._last = goodbye

    def next(self) -> tuple[FrameType, Outbound] | None:
        """The next frame and its type; None if there is nothing to send now."""
        if self._urgent:
            kind, stream, payload = self._urgent.popleft()
            if kind == FrameType.NOTICE:
                self._notices -= 1
                self._notice_bytes -= len(payload)
            elif kind == FrameType.PONG:
                self._pongs -= 1
            return kind, outbound(kind, stream, payload)
        if self._last is not None:
            goodbye, self._last = self._last, None
            return FrameType.GOODBYE, outbound(FrameType.GOODBYE, 0, goodbye)
        if self._credits:
            stream, credit = self._credits.popitem(last=False)
            return FrameType.CREDIT, outbound(FrameType.CREDIT, stream, pack(credit))
        if self._turns:
            stream, outbox = self._turns.popitem(last=False)
            kind, payload = outbox.take()
            self.turn(stream, outbox)
            return kind, outbound(kind, stream, payload)
        return None
