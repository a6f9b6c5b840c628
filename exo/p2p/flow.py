"""Flow control of one stream, one way: pure.

The receiver says how much it has room for, the sender keeps to it, so that a stream that nobody
reads holds a bounded amount of memory and never stands in the way of others (as in HTTP/2, RFC 9113
section 5.2). A frame costs its payload and a fixed amount, since an empty one takes memory too. A
sender with any credit left may send one frame; so no frame can be too large for a window.
"""

from collections import deque

from exo.errors import ProtocolError
from exo.p2p.frames import MAX_PART, FrameType
from exo.p2p.transport import Buffer

FRAME_COST = 64
_COSTLY = frozenset({FrameType.PART, FrameType.BODY, FrameType.REPLY, FrameType.ITEM})


class Outbox:
    """What one side has still to send."""

    def __init__(self, credit: int) -> None:
        self._credit = credit
        self._frames: deque[tuple[FrameType, Buffer]] = deque()

    @property
    def ready(self) -> bool:
        """Whether there is a frame that may go now."""
        return bool(self._frames) and (self._credit > 0 or self._frames[0][0] not in _COSTLY)

    @property
    def has_room(self) -> bool:
        """Whether something put in now would go at once."""
        return not self._frames and self._credit > 0

    def put(self, kind: FrameType, payload: Buffer = b"") -> None:
        """Queue a payload; a long one goes as parts, the last of them as `kind`."""
        start = 0
        while len(payload) - start > MAX_PART:
            self._frames.append((FrameType.PART, memoryview(payload)[start : start + MAX_PART]))
            start += MAX_PART
        self._frames.append((kind, memoryview(payload)[start:] if start else payload))

    def take(self) -> tuple[FrameType, Buffer]:
        """The next frame. Only when `ready`."""
        kind, payload = self._frames.popleft()
        if kind in _COSTLY:
            self._credit -= len(payload) + FRAME_COST
        return kind, payload

    def grant(self, credit: int) -> None:
        """The receiver has room for so many bytes more."""
        self._credit += credit


class Inbox:
    """What one side has still to take: bytes on the way, in parts, or whole and not yet taken."""

    def __init__(self, window: int, largest: int) -> None:
        self._window = window
        self._largest = largest
        self._left = window
        self._owed = 0  # room made again that the sender has not been told of
        self._waiting = 0  # cost of whole messages that nobody has taken
        self._held = 0  # cost of parts behind those
        self._parts = bytearray()

    def begin(self, start: bytes) -> None:
        """The beginning of the first message, that has come by another way and costs nothing."""
        self._parts += start

    def put(self, payload: memoryview) -> None:
        """Take in a part.

        Raises:
            ProtocolError: the sender overran its credit or the size of a message.
        """
        cost = self._charge(payload)
        self._parts += payload
        # The beginning of the message that is waited for makes room for its rest; behind others,
        # it has to wait for them to be taken.
        self._held += cost
        self._settle()

    def put_last(self, payload: memoryview) -> tuple[Buffer, int]:
        """Take in the end of a message: the whole of it, and what it costs until it is taken.

        Raises:
            ProtocolError: the sender overran its credit or the size of a message.
        """
        cost = self._charge(payload) + self._held
        self._held = 0
        self._waiting += cost
        if not self._parts:
            return payload, cost
        whole, self._parts = self._parts, bytearray()
        whole += payload
        return whole, cost

    def _charge(self, payload: memoryview) -> int:
        if self._left <= 0:
            raise ProtocolError("The other side sends more than it may.")
        if len(self._parts) + len(payload) > self._largest:
            raise ProtocolError(f"A message is larger than {self._largest} bytes.")
        cost = len(payload) + FRAME_COST
        self._left -= cost
        return cost

    def taken(self, cost: int) -> None:
        """A message of this cost has been taken."""
        self._waiting -= cost
        self._owed += cost
        self._settle()

    def widen(self, room: int) -> None:
        """Make more room than the window has."""
        self._owed += room

    def grant(self) -> int:
        """How much to let the sender send now. It is told seldom, half a window at a time."""
        if self._owed * 2 < self._window:
            return 0
        owed, self._owed = self._owed, 0
        self._left += owed
        return owed

    def _settle(self) -> None:
        if self._waiting == 0:
            self._owed += self._held
            self._held = 0
