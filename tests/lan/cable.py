"""A long or bad cable: passes frames between two devices later than they came, or not at all.

    python cable.py DEVICE DEVICE DELAY JITTER LOSS SEED

Delay and jitter are seconds each way, loss is a share of the frames. Frames of one direction stay
in order. It says "ready" when it passes frames and ends with its standard input. The kernel's netem
does the same, but not every kernel has it, and its losses are not the same each time.
"""

import heapq
import random
import select
import socket
import sys
import time
from dataclasses import dataclass
from itertools import count

_SOL_PACKET = 263
_PACKET_VNET_HDR = 15  # Frames are as large as the sender's card was given them, checksums to come.
_PACKET_IGNORE_OUTGOING = 23
_ALL = 0x0003
_HEADER_AND_FRAME = 10 + 65536 + 64


@dataclass
class Direction:
    source: socket.socket
    target: socket.socket
    last: float = 0.0


def main(one: str, other: str, *quality: str) -> None:
    delay, jitter, loss = map(float, quality[:3])
    chance = random.Random(quality[3])  # noqa: S311  the same losses each time
    a, b = _open(one), _open(other)
    ways = {a: Direction(a, b), b: Direction(b, a)}
    waiting: list[tuple[float, int, socket.socket, bytes]] = []
    number = count()
    print("ready", flush=True)  # noqa: T201  whoever started it waits for this
    while True:
        pause = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        ready = select.select([a, b, sys.stdin], [], [], pause)[0]
        if sys.stdin in ready:
            return
        for source in ready:
            way = ways[source]
            for frame in _frames(source):
                if chance.random() < loss:
                    continue
                due = time.monotonic() + delay + chance.uniform(0, jitter)
                way.last = max(way.last, due)
                heapq.heappush(waiting, (way.last, next(number), way.target, frame))
        while waiting and waiting[0][0] <= time.monotonic():
            _, _, target, frame = heapq.heappop(waiting)
            try:
                target.send(frame)
            except OSError:  # The device is down, or its queue full: so the frame is lost.
                continue


def _frames(source: socket.socket) -> list[bytes]:
    found: list[bytes] = []
    while len(found) < 256:
        try:
            found.append(source.recv(_HEADER_AND_FRAME))
        except BlockingIOError:
            break
        except OSError:  # The device has gone down; it says so once.
            continue
    return found


def _open(device: str) -> socket.socket:
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
    opened.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
    opened.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**24)
    opened.bind((device, _ALL))
    opened.setblocking(False)
    return opened


if __name__ == "__main__":
    main(*sys.argv[1:])
