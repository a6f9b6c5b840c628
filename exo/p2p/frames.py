"""What crosses a channel: frames, and how they are written.

A frame is

    type     1 byte
    stream   8 bytes, big-endian; what it is about: a stream's id, a ping's nonce, or 0
    payload  the rest

and on a byte stream its length stands before it, in 4 bytes, big-endian. By type, the payload is

    GREETING PROOF HELLO READY ACCEPT REFUSE    see `admission`
    REQUEST, OPEN   msgpack [method, window, whole, body's bytes or their beginning]
    PART            bytes of a body that does not fit in one frame
    BODY            the last bytes of a request's body
    REPLY, ITEM     the body's bytes, or the last of them
    ERROR           msgpack map, `exo.errors.to_wire`
    END, CANCEL     empty
    CREDIT          msgpack integer: so many bytes more may be sent
    NOTICE          msgpack [method, body]
    PING, PONG      empty
    GOODBYE         msgpack string: why

A body is one msgpack value without extension types, with text as map keys. Types that are not
known are for a newer version, and ignored.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple, cast

import msgpack

from exo.errors import ProtocolError
from exo.p2p.transport import MAX_FRAME, Buffer

Body = None | bool | int | float | str | bytes | Sequence["Body"] | Mapping[str, "Body"]
"""What msgpack carries."""

HEADER = struct.Struct(">BQ")
LENGTH = struct.Struct(">I")
# Bytes of a payload; and of a body's part, so that a large body does not keep others waiting.
MAX_PAYLOAD = MAX_FRAME - HEADER.size
MAX_PART = 2**19
MAX_NAME = 256


class FrameType(IntEnum):
    """On the wire for ever: never reuse a number."""

    GREETING = 1
    PROOF = 2
    HELLO = 3
    READY = 4
    ACCEPT = 5
    REFUSE = 6
    REQUEST = 16
    OPEN = 17
    PART = 18
    BODY = 19
    REPLY = 20
    ITEM = 21
    ERROR = 22
    END = 23
    CANCEL = 24
    CREDIT = 25
    NOTICE = 26
    PING = 27
    PONG = 28
    GOODBYE = 29


@dataclass(frozen=True, slots=True)
class Frame:
    """`type` is a number, since it may be one that this version does not know."""

    type: int
    stream: int
    payload: memoryview


class Outbound(NamedTuple):
    """A frame to be sent, in two parts, so that what is large need not be copied."""

    stream: int
    head: bytes
    payload: Buffer

    @property
    def data(self) -> bytes:
        """The whole frame."""
        return b"".join((self.head, self.payload))


def outbound(kind: FrameType, stream: int, payload: Buffer) -> Outbound:
    return Outbound(stream, HEADER.pack(kind, stream), payload)


def encode(kind: FrameType, stream: int = 0, payload: Buffer = b"") -> bytes:
    """A whole frame, without its length."""
    return b"".join((HEADER.pack(kind, stream), payload))


def decode(frame: Buffer) -> Frame:
    """The frame in these bytes.

    Raises:
        ProtocolError: it is too short or too long.
    """
    if not HEADER.size <= len(frame) <= MAX_FRAME:
        raise ProtocolError(f"A frame of {len(frame)} bytes is none.")
    kind, stream = HEADER.unpack_from(frame)
    return Frame(kind, stream, memoryview(frame)[HEADER.size :])


def pack(body: object) -> bytes:
    """A value in msgpack.

    Raises:
        ProtocolError: msgpack cannot carry it.
    """
    try:
        return msgpack.packb(body)
    except (TypeError, ValueError, OverflowError) as error:
        raise ProtocolError(f"What is to be sent cannot be: {error}.") from error


def unpack(payload: Buffer) -> Any:
    """The value in a payload. It cannot nest deeper than msgpack's own limit of 1,024.

    Raises:
        ProtocolError: there is none, or more than one, or one of a kind that is not sent.
    """
    try:
        # What lengths it may claim, the number of bytes bounds; extension types are refused.
        return msgpack.unpackb(payload, strict_map_key=True, max_ext_len=0)
    except (ValueError, TypeError, RecursionError) as error:
        raise ProtocolError("A frame holds what is no body.") from error


def unpack_fields(payload: Buffer, *types: type) -> Sequence[Any]:
    """The values of a msgpack array that begins with these types; a newer version may send more.

    Raises:
        ProtocolError: it does not.
    """
    fields = unpack(payload)
    if not isinstance(fields, list):
        raise ProtocolError("A frame's fields are no list.")
    values = cast("list[Any]", fields)
    if len(values) < len(types):
        raise ProtocolError("A frame lacks fields.")
    for value, wanted in zip(values, types, strict=False):
        if type(value) is not wanted:
            raise ProtocolError("A frame's field is of the wrong type.")
    return values
