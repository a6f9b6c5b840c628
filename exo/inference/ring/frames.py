"""Frames between neighbours in the ring.

    offset  bytes
    0       4      "exoR"
    4       1      version
    5       1      kind
    6       2      zero
    8       4      length of the body
    12      8      length of the tensors
    20      …      body (msgpack), then the tensors' bytes

All numbers are big-endian. A frame whose numbers are out of bounds ends the link: what follows
could not be told from its middle.
"""

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from exo.errors import RingError

VERSION = 1
HEADER = struct.Struct(">4sBBHIQ")
MAX_BODY = 64 * 1024 * 1024
MAX_TENSORS = 4 * 1024 * 1024 * 1024
_MAGIC = b"exoR"
# Up to this size a frame is put together before it is sent: one system call, one packet.
_SMALL = 64 * 1024


class Kind(IntEnum):
    """What a frame is. HELLO, FORM and PING belong to the transport, the others to the ranks;
    ADDRESSES and LOADED only go round where the ranks form a group of `mx.distributed`, FORGET
    where they draw a picture in patches."""

    HELLO = 1
    FORM = 2
    PING = 3
    STEP = 4
    RESULT = 5
    ADDRESSES = 6
    LOADED = 7
    FORGET = 8


_KINDS = {kind.value: kind for kind in Kind}


class Frame(NamedTuple):
    """One frame; `tensors` are the raw bytes of arrays, which the body describes."""

    kind: Kind
    body: bytes = b""
    tensors: Sequence[memoryview] = ()

    def parts(self) -> list[bytes | memoryview]:
        """The bytes to be written, in as few pieces as copying is worth.

        Raises:
            RingError: it is larger than a frame may be.
        """
        size = sum(tensor.nbytes for tensor in self.tensors)
        if len(self.body) > MAX_BODY or size > MAX_TENSORS:
            raise RingError(f"A step has {len(self.body) + size} bytes, too many for the ring.")
        head = HEADER.pack(_MAGIC, VERSION, self.kind, 0, len(self.body), size)
        if len(head) + len(self.body) + size <= _SMALL:
            return [b"".join((head, self.body, *self.tensors))]
        return [head + self.body, *filter(len, self.tensors)]


def read_header(header: bytes | bytearray) -> tuple[Kind, int, int]:
    """The kind of a frame, and the lengths of its body and its tensors.

    Raises:
        RingError: it is no frame of this version.
    """
    magic, version, kind, zero, body, tensors = HEADER.unpack(header)
    if magic != _MAGIC or zero:
        raise RingError("What came over the ring is no frame.")
    if version != VERSION:
        raise RingError(f"A neighbour in the ring speaks version {version}, this is {VERSION}.")
    if body > MAX_BODY or tensors > MAX_TENSORS:
        raise RingError(f"A frame of {body} and {tensors} bytes was announced in the ring.")
    known = _KINDS.get(kind)
    if known is None:
        raise RingError(f"A frame of the unknown kind {kind} came over the ring.")
    return known, body, tensors
