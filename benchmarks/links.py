"""A link between two processes on this machine, beside a plain TCP socket in the same run.

    python -m benchmarks.links [--mib 1024] [--rounds 2000] [--repeat 3] [--chunk-kib 256]

The link is the whole stack: TLS 1.3, frames, flow control, and `Link.stream` or `Link.request`. The
plain socket is read and written by the same event loop with `sock_sendall` and `sock_recv_into`.
They take turns, so that what else the machine does hits both.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import socket
import statistics
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from multiprocessing.connection import Connection

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from exo.p2p.admission import Admission, Hello
from exo.p2p.identity import Identity
from exo.p2p.link import Body, Link, Services
from exo.p2p.link_events import LinkEvent, LinkUp
from exo.p2p.links import Links
from exo.p2p.tls import TlsTransport

REQUIRED_MB_PER_S = 300.0
REQUIRED_P50_MS = 0.5
MESSAGE = bytes(64)


def make_links(services: Services, on_event: Callable[[LinkEvent], None]) -> Links:
    identity = Identity(Ed25519PrivateKey.generate())
    hello = Hello(
        peer_id=identity.peer_id, name=str(os.getpid()), cluster="bench", version="0", boot="b"
    )
    return Links(
        identity=identity,
        transport=TlsTransport(identity),
        admission=Admission("bench"),
        hello=lambda: hello,
        services=services,
        on_event=on_event,
    )


async def bulk(_: str, body: Body) -> AsyncGenerator[Body]:
    """`[items, bytes]` → so many items of so many bytes."""
    assert isinstance(body, list)
    count, size = map(int, body)  # pyright: ignore[reportArgumentType]  this file's own two numbers
    chunk = os.urandom(size)
    for _number in range(count):
        yield chunk


async def echo(_: str, body: Body) -> Body:
    return body


async def serve_plain(sock: socket.socket) -> None:
    """Asked for `items bytes\\n`, sends them; then echoes."""
    loop = asyncio.get_running_loop()
    with sock:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while wanted := await loop.sock_recv(sock, len(MESSAGE)):
            if wanted == MESSAGE:
                await loop.sock_sendall(sock, wanted)
                continue
            count, size = map(int, wanted.split())
            chunk = os.urandom(size)
            for _ in range(count):
                await loop.sock_sendall(sock, chunk)


async def serve(pipe: Connection) -> None:
    """The other process: listens for links and for plain connections until it is told to end."""
    services = Services(requests={"echo": echo}, streams={"bulk": bulk})
    links = make_links(services, lambda _: None)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    loop = asyncio.get_running_loop()
    pipe.send((await links.listen("/ip4/127.0.0.1/tcp/0"), listener.getsockname()))
    sock, _ = await loop.sock_accept(listener)
    plain = asyncio.create_task(serve_plain(sock))
    told = asyncio.Event()
    loop.add_reader(pipe.fileno(), told.set)
    await told.wait()
    plain.cancel()
    await links.close()
    listener.close()


async def plain_bulk(sock: socket.socket, count: int, size: int) -> float:
    """Seconds."""
    loop = asyncio.get_running_loop()
    buffer = bytearray(size)
    left = count * size
    start = time.perf_counter()
    await loop.sock_sendall(sock, f"{count} {size}".encode())
    while left:
        left -= await loop.sock_recv_into(sock, buffer)
    return time.perf_counter() - start


async def plain_round(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, MESSAGE)
    got = 0
    while got < len(MESSAGE):
        got += len(await loop.sock_recv(sock, len(MESSAGE)))


async def link_bulk(link: Link, count: int, size: int) -> float:
    """Seconds."""
    left = count * size
    start = time.perf_counter()
    async with aclosing(link.stream("bulk", [count, size])) as items:
        async for item in items:
            assert isinstance(item, bytes)
            left -= len(item)
    assert left == 0
    return time.perf_counter() - start


async def rounds(one: Callable[[], Awaitable[object]], count: int) -> list[float]:
    """Seconds, sorted."""
    found: list[float] = []
    for _ in range(count):
        start = time.perf_counter()
        await one()
        found.append(time.perf_counter() - start)
    return sorted(found)


async def measure(pipe: Connection, options: argparse.Namespace) -> dict[str, float]:
    up = asyncio.get_running_loop().create_future()

    def on_event(event: LinkEvent) -> None:
        if isinstance(event, LinkUp):
            up.set_result(event)

    links = make_links(Services(), on_event)
    address, plain_address = pipe.recv()
    start = time.perf_counter()
    links.dial(None, [address])
    link = links.get((await up).peer.peer_id)
    linked_ms = (time.perf_counter() - start) * 1e3
    assert link
    sock = socket.create_connection(plain_address)
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    size = options.chunk_kib * 1024
    count = options.mib * 1024 // options.chunk_kib
    speeds: dict[str, list[float]] = {"link": [], "plain": []}
    times: dict[str, list[float]] = {"link": [], "plain": []}
    for _ in range(options.repeat):
        speeds["link"].append(count * size / 1e6 / await link_bulk(link, count, size))
        speeds["plain"].append(count * size / 1e6 / await plain_bulk(sock, count, size))
        times["link"] += await rounds(lambda: link.request("echo", MESSAGE), options.rounds)
        times["plain"] += await rounds(lambda: plain_round(sock), options.rounds)
    with sock:
        pipe.send("end")
    await links.close()
    quantiles = {name: statistics.quantiles(found, n=100) for name, found in times.items()}
    return {
        "linked_ms": linked_ms,
        "link_mb_per_s": statistics.median(speeds["link"]),
        "plain_mb_per_s": statistics.median(speeds["plain"]),
        "link_p50_ms": quantiles["link"][49] * 1e3,
        "link_p99_ms": quantiles["link"][98] * 1e3,
        "plain_p50_ms": quantiles["plain"][49] * 1e3,
        "plain_p99_ms": quantiles["plain"][98] * 1e3,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--mib", type=int, default=1024, help="bytes of one bulk stream")
    parser.add_argument("--chunk-kib", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    other = context.Process(target=run_server, args=(theirs,))
    other.start()
    found = asyncio.run(measure(ours, options))
    other.join()
    if options.json:
        print(json.dumps(found, indent=2))
        return
    print(f"one link up       {found['linked_ms']:9.2f} ms")
    for name in ("link", "plain"):
        print(
            f"{name:6} {found[name + '_mb_per_s']:9.0f} MB/s    round trip"
            f"  p50 {found[name + '_p50_ms']:.3f} ms  p99 {found[name + '_p99_ms']:.3f} ms"
        )
    print(
        f"link / plain: {found['link_mb_per_s'] / found['plain_mb_per_s']:.2f} of the bandwidth,"
        f" {found['link_p50_ms'] / found['plain_p50_ms']:.1f} times the round trip"
    )
    good = found["link_mb_per_s"] >= REQUIRED_MB_PER_S and found["link_p50_ms"] < REQUIRED_P50_MS
    print(f"required: {REQUIRED_MB_PER_S:.0f} MB/s, p50 < {REQUIRED_P50_MS} ms: "
          f"{'kept' if good else 'MISSED'}")  # fmt: skip


def run_server(pipe: Connection) -> None:
    asyncio.run(serve(pipe))


if __name__ == "__main__":
    main()
