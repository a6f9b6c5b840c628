"""Which of a peer's addresses is taken."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from exo.errors import ExoError, HandshakeError, PeerTimeout, PeerUnreachable
from exo.p2p import connecting
from exo.p2p.connecting import MAX_TRIED, Attempt, connect_first
from exo.p2p.transport import Accept, Channel, Listener
from tests.p2p.people import ANN, BOB

Result = Callable[[], Coroutine[Any, Any, Any]]


class FakeChannel:
    """Only knows whether it was aborted."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


class FakeTransport:
    """Connects as the test says, by address."""

    def __init__(self, **results: Result) -> None:
        self.refused: Counter[str] = Counter()
        self.tried: list[tuple[str, str | None]] = []
        self._results = {f"/memory/{name.removeprefix('a')}": r for name, r in results.items()}

    async def connect(self, address: str, expect: str | None) -> Channel:
        self.tried.append((address, expect))
        return await self._results[address]()

    async def listen(self, address: str, accept: Accept) -> Listener:
        raise NotImplementedError


def gives(result: Any) -> Result:
    async def connect() -> Any:
        if isinstance(result, ExoError):
            raise result
        return result

    return connect


async def never() -> None:
    await asyncio.Event().wait()


REFUSED = PeerUnreachable("Refused.", refused=True)
UNREACHABLE = PeerUnreachable("No route.")
SILENT = PeerTimeout("Silent.")
ANOTHER = HandshakeError("Another.")


async def test_the_first_that_leads_there_is_taken_and_no_more_are_tried():
    channel = FakeChannel("b")
    transport = FakeTransport(a1=gives(REFUSED), a2=gives(channel), a3=never)
    attempt = await connect_first(transport, BOB.peer_id, ["/memory/1", "/memory/2", "/memory/3"])
    assert attempt.channel is channel
    assert transport.tried == [("/memory/1", BOB.peer_id), ("/memory/2", BOB.peer_id)]


async def test_one_that_is_slow_does_not_hold_up_the_next(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connecting, "STAGGER", 0.001)
    channel = FakeChannel("b")
    transport = FakeTransport(a1=never, a2=gives(channel))
    attempt = await connect_first(transport, None, ["/memory/1", "/memory/2"])
    assert attempt.channel is channel


async def test_of_two_that_lead_there_one_is_kept(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connecting, "STAGGER", 0.001)
    both = asyncio.Event()
    one, other = FakeChannel("one"), FakeChannel("other")

    async def slow(channel: FakeChannel, last: bool) -> FakeChannel:
        if last:
            both.set()
        await both.wait()
        return channel

    transport = FakeTransport(a1=lambda: slow(one, False), a2=lambda: slow(other, True))
    attempt = await connect_first(transport, None, ["/memory/1", "/memory/2"])
    assert attempt.channel in (one, other)
    assert {one.aborted, other.aborted} == {True, False}
    assert not attempt.channel.aborted  # type: ignore[union-attr]


async def test_giving_up_cancels_what_is_tried():
    transport = FakeTransport(a1=never)
    task = asyncio.create_task(connect_first(transport, None, ["/memory/1"]))
    for _ in range(3):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize(
    ("errors", "refused"),
    [
        ([REFUSED], True),
        ([REFUSED, UNREACHABLE], True),
        ([REFUSED, ANOTHER], True),
        ([REFUSED, SILENT], False),
        ([UNREACHABLE], False),
        ([ANOTHER], False),
        ([], False),
    ],
)
def test_when_nobody_listens_there(errors: list[ExoError], refused: bool):
    assert Attempt(None, errors).refused == refused


async def test_an_address_may_name_who_is_there():
    transport = FakeTransport(**{f"a1/p2p/{BOB.peer_id}": gives(FakeChannel("b"))})
    attempt = await connect_first(transport, None, [f"/memory/1/p2p/{BOB.peer_id}"])
    assert attempt.channel
    assert transport.tried[0][1] == BOB.peer_id
    attempt = await connect_first(transport, ANN.peer_id, [f"/memory/1/p2p/{BOB.peer_id}", "junk"])
    assert [type(error).__name__ for error in attempt.errors] == ["HandshakeError", "ConfigError"]
    assert len(transport.tried) == 1


async def test_only_so_many_are_tried():
    results = {f"a{n}": gives(REFUSED) for n in range(100)}
    attempt = await connect_first(
        FakeTransport(**results), None, [f"/memory/{n}" for n in range(100)]
    )
    assert len(attempt.errors) == MAX_TRIED
    assert (await connect_first(FakeTransport(), None, [])).errors == []
