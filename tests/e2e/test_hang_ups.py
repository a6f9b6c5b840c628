"""200 clients that hang up at random moments, on every path: before they have sent all of their
request, while they wait, and in the middle of what they are told. Nothing is left of them."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from tests.conftest import StartDaemon

from .daemon import Daemon, Json, chat_body
from .endless import FIELDS, MODEL
from .holding import Holding, probed_path

pytestmark = pytest.mark.e2e

CLIENTS, AT_ONCE, SLOTS = 200, 25, 4
# What a stream brings before an answer is under way, and what some dozens of tokens bring.
OPENING, FURTHER = 300, 20_000


@pytest.fixture
def daemon(start: StartDaemon, monkeypatch: pytest.MonkeyPatch) -> Daemon:
    monkeypatch.setenv("PYTHONPATH", probed_path())
    return start(max_queue=CLIENTS)


def asked(number: int) -> tuple[str, Json]:
    """A request of the kinds in turn. Most would have no end."""
    text = f"Hello {number}. " * (number % 40 + 1)
    stream = number % 3 > 0
    match number % 7:
        case 0 | 1:
            return "/v1/chat/completions", chat_body(MODEL, text, stream=stream, n=2, **FIELDS)
        case 2:
            return "/v1/completions", {"model": MODEL, "prompt": text, "stream": stream, **FIELDS}
        case 3:
            body = chat_body(MODEL, text, stream=stream)
            return "/v1/messages", {**body, "max_tokens": 100_000}
        case 4:
            return "/v1/responses", {"model": MODEL, "input": text, "stream": stream}
        case 5:
            return "/api/chat", chat_body(MODEL, text, stream=stream)
        case _:
            return "/v1/embeddings", {"model": MODEL, "input": [text] * 20}


async def hang_up(daemon: Daemon, number: int, moment: random.Random) -> str:
    """One client; what it was doing when it went."""
    where = urlsplit(daemon.base_url)
    path, body = asked(number)
    content = json.dumps(body).encode()
    head = [f"POST {path} HTTP/1.1", f"Host: {where.netloc}", "Content-Type: application/json"]
    head += [f"Content-Length: {len(content)}", "Connection: close", "", ""]
    whole = "\r\n".join(head).encode() + content
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    try:
        match moment.choice(["sending", "waiting", "reading", "reading further"]):
            case "sending":
                writer.write(whole[: moment.randrange(len(whole))])
                await writer.drain()
                return "sending"
            case "waiting":
                writer.write(whole)
                await writer.drain()
                return "waiting"
            case how:
                writer.write(whole)
                if not body.get("stream"):
                    # Its answer would not come, and that of a later client is no sooner there.
                    await writer.drain()
                    return "waiting"
                left = moment.randrange(OPENING if how == "reading" else FURTHER)
                while left > 0 and (some := await reader.read(left)):
                    left -= len(some)
                return how
    finally:
        # At once, and with a reset where there is something that was not read.
        writer.transport.abort()


async def all_hang_up(daemon: Daemon, seed: int, count: int) -> Counter[str]:
    moment, room = random.Random(seed), asyncio.Semaphore(AT_ONCE)  # noqa: S311  no secret

    async def one(number: int) -> str:
        async with room:
            return await hang_up(daemon, number, moment)

    return Counter(await asyncio.gather(*map(one, range(count))))


def fill(daemon: Daemon) -> Iterator[int]:
    """As many short answers as there are slots, and their lengths."""
    with ThreadPoolExecutor(SLOTS) as pool:
        answers = pool.map(
            lambda _: daemon.chat(MODEL, max_tokens=3, **FIELDS)["usage"], range(SLOTS)
        )
        yield from (usage["completion_tokens"] for usage in answers)


def reserved(daemon: Daemon) -> float:
    """Bytes of KV memory that answers have a claim to."""
    lines = daemon.http.get("/metrics").text.splitlines()
    (line,) = (line for line in lines if line.startswith("exo_kv_cache_reserved_bytes{"))
    return float(line.rsplit(" ", 1)[1])


async def test_200_clients_hang_up_and_nothing_is_left_of_them(daemon: Daemon) -> None:
    daemon.create(MODEL, concurrency=SLOTS)
    # Whatever the first request of each kind brings into memory, and threads.
    await all_hang_up(daemon, 1, 2 * AT_ONCE)
    assert [*fill(daemon)] == [3] * SLOTS
    before = Holding.of(daemon)

    gone = await all_hang_up(daemon, 2, CLIENTS)

    assert gone.total() == CLIENTS
    assert gone.keys() == {"sending", "waiting", "reading", "reading further"}
    assert [*fill(daemon)] == [3] * SLOTS
    after = Holding.of(daemon)
    assert not after.is_more_than(before), f"{after} now, {before} before"
    assert after.children == before.children, "no runner went, and none was added"
    with daemon.stream(MODEL, max_tokens=3, **FIELDS) as lines:
        assert [*lines]
    assert reserved(daemon) == 0
