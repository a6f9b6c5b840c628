"""What crosses a network, frame by frame, in a file that Wireshark reads (pcap)."""

import select
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from .namespace import Namespace

_SOL_PACKET = 263
_PACKET_STATISTICS = 6
_PACKET_IGNORE_OUTGOING = 23
_SO_RCVBUFFORCE = 33
_ALL = 0x0003
_LONGEST = 2**18
# Magic, version, zone, accuracy, longest frame, Ethernet
# (https://www.ietf.org/archive/id/draft-gharris-opsawg-pcap-01.html).
_FILE_HEAD = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, _LONGEST, 1)
_FRAME_HEAD = struct.Struct("<IIII")


class Capture:
    """While it is entered, every frame that comes into these devices of a namespace is written to
    `path`: with all ports of a switch, each frame once.

    Senders hand large packets to a virtual card in one piece, so a frame may be longer than a real
    network would allow. `dropped` is how many came too fast to be kept.
    """

    def __init__(self, namespace: Namespace, devices: Sequence[str], path: Path) -> None:
        self.path = path
        self.dropped = 0
        self._namespace = namespace
        self._devices = devices

    def __enter__(self) -> Self:
        with ExitStack() as stack, self._namespace.inside():
            self._sockets = [
                _open(device, stack.enter_context(_new_socket())) for device in self._devices
            ]
            self._stop, self._stopped = map(stack.enter_context, socket.socketpair())
            self._thread = threading.Thread(target=self._run, name="capture")
            self._thread.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """What has come until now is in the file."""
        self._stop.close()
        self._thread.join()
        for one in self._sockets:
            statistics = one.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
            self.dropped += struct.unpack("II", statistics)[1]
        self._stack.close()

    def frames(self) -> Iterator[bytes]:
        """The frames in the file, from the Ethernet header on."""
        with self.path.open("rb") as file:
            file.seek(len(_FILE_HEAD))
            while head := file.read(_FRAME_HEAD.size):
                yield file.read(_FRAME_HEAD.unpack(head)[2])

    def contains(self, text: bytes) -> bool:
        """Whether some frame has this within it, in clear."""
        return any(text in frame for frame in self.frames())

    def _run(self) -> None:
        with self.path.open("wb") as file:
            file.write(_FILE_HEAD)
            stopping = False
            while not stopping:
                ready = select.select([*self._sockets, self._stopped], [], [])[0]
                stopping = self._stopped in ready
                for one in self._sockets:
                    _drain(one, file)


def _new_socket() -> socket.socket:
    return socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)


def _open(device: str, opened: socket.socket) -> socket.socket:
    opened.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 2**25)
    opened.setblocking(False)
    opened.bind((device, _ALL))
    return opened


def _drain(source: socket.socket, file: BinaryIO) -> None:
    while True:
        try:
            frame = source.recv(_LONGEST)
        except BlockingIOError:
            return
        except OSError:  # The device has gone down; it says so once.
            continue
        seconds, nanoseconds = divmod(time.time_ns(), 10**9)
        size = len(frame)
        file.write(_FRAME_HEAD.pack(seconds, nanoseconds // 1000, size, size) + frame)
