"""One link between two nodes in memory."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from exo.errors import (
    BodyTooLarge,
    ExoError,
    LinkClosed,
    ModelNotFound,
    NotImplementedYet,
    PeerTimeout,
    ProtocolError,
    QueueFull,
)
from exo.p2p.frames import FrameType, encode
from exo.p2p.link import Body
from exo.p2p.link_events import LinkDown
from exo.p2p.links import LinkLimits
from exo.p2p.mux import MuxLimits
from tests.p2p.nodes import lab
from tests.p2p.people import ANN, BOB


class Gate:
    """A handler that says when it is in, and goes on when it is let."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.release = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def request(self, _: str, body: Body) -> Body:
        self.entered.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return body

    async def stream(self, _: str, body: Body) -> AsyncGenerator[Body]:
        yield body
        await self.request(_, body)


async def echo(_: str, body: Body) -> Body:
    return body


async def who(peer_id: str, _: Body) -> Body:
    return peer_id


async def count(_: str, body: Body) -> AsyncGenerator[Body]:
    assert isinstance(body, int)
    for number in range(body):
        yield number


async def test_requests_both_ways_at_once():
    async with lab() as found:
        ann, bob = await found.peer(ANN), await found.peer(BOB)
        ann.services.requests["who"] = bob.services.requests["who"] = who
        link = await ann.link(bob)
        asked = [link.request("who") for _ in range(50)]
        asked += [bob.link_to(ann).request("who") for _ in range(50)]
        assert await asyncio.gather(*asked) == [ANN.peer_id] * 50 + [BOB.peer_id] * 50


async def test_each_side_knows_the_other():
    async with lab() as found:
        ann, bob = await found.peer(ANN), await found.peer(BOB)
        link = await ann.link(bob)
        assert (link.hello, link.outgoing, link.address) == (bob.hello(), True, bob.address)
        other = bob.link_to(ann)
        assert (other.hello, other.outgoing) == (ann.hello(), False)


async def test_bodies_of_megabytes():
    async with lab() as found:
        ann, bob = await found.peer(ANN), await found.peer(BOB)
        bob.services.requests["echo"] = echo
        link = await ann.link(bob)
        body = {"blob": bytes(15 * 2**20)}
        assert await link.request("echo", body) == body
        with pytest.raises(BodyTooLarge):
            await link.request("echo", bytes(16 * 2**20))
        assert await link.request("echo", "still up") == "still up"


async def test_a_reply_too_large_is_the_handlers_error():
    async def large(_: str, __: Body) -> Body:
        return bytes(17 * 2**20)

    async with lab() as found:
        ann, bob = await found.peer(ANN), await found.peer(BOB)
        bob.services.requests["large"] = large
        with pytest.raises(BodyTooLarge):
            await (await ann.link(bob)).request("large")


async def test_a_handlers_error_crosses_as_what_it_is():
    async def refuse(_: str, __: Body) -> Body:
        raise ModelNotFound("No such model.", hint="Pull it.")

    async with lab() as found:
        ann, bob = await found.peer(ANN), await found.peer(BOB)
        bob.services.requests["refuse"] = refuse
        link = await ann.link(bob)
        with pytest.raises(ModelNotFound, match="No such model") as caught:
            await link.request("refuse")
        assert caught.value.hint == "Pull it."


async def test_a_handlers_bug_is_logged_there_and_is_an_internal_error_here(
    caplog: pytest.LogCaptureFixture,
):
    async def broken(_: str, __: Body) -> Body:
        raise ZeroDivisionError("secret detail")

    async def half(_: str, __: Body) -> AsyncGenerator[Body]:
        yield 1
        raise ZeroDivisionError("secret detail")

    def bad(_: str, __: Body) -> None:
        raise ZeroDivisionError

    async with lab() as found:
        ann, bob = await found.peer(ANN), await found.peer(BOB)
        bob.services.requests.update(broken=broken, echo=echo)
        bob.services.streams["half"] = half
        bob.services.notices["bad"] = bad
        link = await ann.link(bob)
        with pytest.raises(ExoError, match="failed at 'broken'") as caught:
            await link.request("broken")
        assert caught.value.code == "internal_error"
        assert "secret" not in str(caught.value)
        async with aclosing(link.stream("half")) as items:
            assert await anext(items) == 1
            with pytest.raises(ExoError, match="failed at 'half'"):
                await anext(items)
        link.notify("bad", None)
        assert await link.request("echo", 1) == 1
    assert [record.exc_info is not None for record in caplog.records] == [True] * 3


async def test_what_the_other_side_does_not_know():
    async with lab() as found:
        ann, bob = await found.peer(ANN), await found.peer(BOB)
        link = await ann.link(bob)
        with pytest.raises(NotImplementedYet, match="'nothing'"):
            await link.request("nothing")
        with pytest.raises(NotImplementedYet):
            await anext(link.stream("nothing"))
        link.notify("nothing", None)
        assert await link.ping() >= 0


async def test_a_request_that_takes_too_long_is_given_up_on_both_sides():
    gate = Gate()
    async with lab() as found:
        ann, bob = await found.peer(ANN), await found.peer(BOB)
        bob.services.requests["gate"] = gate.request
        link = await ann.link(bob)
        with pytest.raises(PeerTimeout, match="'gate'"):
            await link.request("gate", timeout=0.01)
        await gate.cancelled.wait()


async def test_a_request_that_is_cancelled_is_cancelled_there():
    gate = Gate()
    async with lab() as found:
        ann, bob = await found.peer(ANN), await found.peer(BOB)
        bob.services.requests["gate"] = gate.request
        link = await ann.link(bob)
        task = asyncio.create_task(link.request("gate"))
        await gate.entered.wait()
        task.cancel()
        await gate.cancelled.wait()


async def test_a_stream_to_its_end():
    async with lab() as found:
        ann, bob = await found.peer(ANN), await found.peer(BOB)
        bob.services.streams["count"] = count
        link = await ann.link(bob)
        assert [item async for item in link.stream("count", 1000)] == list(range(1000))


async def test_a_stream_that_is_closed_is_cancelled_there():
    gate = Gate()
    async with lab() as found:
        ann, bob = await found.peer(ANN), await found.peer(BOB)
        bob.services.streams["gate"] = gate.stream
        link = await ann.link(bob)
        async with aclosing(link.stream("gate", 7)) as items:
            assert await anext(items) == 7
            await gate.entered.wait()
        await gate.cancelled.wait()


async def test_a_stream_fills_only_as_it_is_taken():
    made = 0

    async def endless(_: str, __: Body) -> AsyncGenerator[Body]:
        nonlocal made
        while True:
            made += 1
            yield bytes(2**16)

    async with lab() as found:
        ann, bob = await found.peer(ANN), await found.peer(BOB)
        bob.services.streams["endless"] = endless
        bob.services.requests["echo"] = echo
        link = await ann.link(bob)
        async with aclosing(link.stream("endless")) as items:
            await anext(items)
            for _ in range(50):
                await link.request("echo")
            assert made < 40, "a window of 1 MiB and a little"
            for _ in range(100):
                await anext(items)
        assert made >= 100


async def test_items_of_any_size_pass_a_small_window():
    sizes = [0, 1, 5000, 2**20 + 1, 3, 2**21]

    async def blobs(_: str, __: Body) -> AsyncGenerator[Body]:
        for size in sizes:
            yield bytes(size)

    limits = LinkLimits(mux=MuxLimits(window=1000))
    async with lab() as found:
        ann, bob = await found.peer(ANN, limits=limits), await found.peer(BOB)
        bob.services.streams["blobs"] = blobs
        link = await ann.link(bob)
        got = [len(item) async for item in link.stream("blobs")]  # type: ignore[arg-type]
        assert got == sizes


async def test_notices_in_order():
    heard: list[tuple[str, Body]] = []
    async with lab() as found:
        ann, bob = await found.peer(ANN), await found.peer(BOB)
        bob.services.notices["say"] = lambda peer_id, body: heard.append((peer_id, body))
        link = await ann.link(bob)
        for number in range(100):
            link.notify("say", number)
        await link.ping()
        assert heard == [(ANN.peer_id, number) for number in range(100)]


async def test_a_notice_that_cannot_be_sent_is_logged(caplog: pytest.LogCaptureFixture):
    async with lab() as found:
        ann, bob = await found.peer(ANN), await found.peer(BOB)
        link = await ann.link(bob)
        link.notify("say", bytes(2**20))
        assert "cannot be told" in caplog.text
        link.close("done")
        link.notify("say", 1)


async def test_more_requests_than_the_other_side_takes():
    gate = Gate()
    limits = LinkLimits(mux=MuxLimits(streams=3))
    async with lab() as found:
        ann, bob = await found.peer(ANN, limits=limits), await found.peer(BOB, limits=limits)
        bob.services.requests.update(gate=gate.request, echo=echo)
        link = await ann.link(bob)
        waiting = [asyncio.create_task(link.request("gate", n)) for n in range(3)]
        await gate.entered.wait()
        with pytest.raises(QueueFull):
            await link.request("gate")
        gate.release.set()
        assert await asyncio.gather(*waiting) == [0, 1, 2]
        for _ in range(20):
            assert await link.request("echo", 1) == 1


async def test_the_round_trip_and_the_bandwidth():
    async with lab() as found:
        ann, bob = await found.peer(ANN), await found.peer(BOB)
        link = await ann.link(bob)
        assert 0 < await link.ping() < 60
        assert await link.bandwidth() > 0
        assert await bob.link_to(ann).bandwidth() > 0


async def test_a_peer_that_does_not_answer(monkeypatch: pytest.MonkeyPatch):
    async with lab() as found:
        ann, bob = await found.peer(ANN), await found.peer(BOB)
        link = await ann.link(bob)
        found.faults.stall(ANN.peer_id, BOB.peer_id)
        monkeypatch.setattr("exo.p2p.link.PING_TIMEOUT", 0.01)
        monkeypatch.setattr("exo.p2p.link._BULK_PATIENCE", 0.01)
        with pytest.raises(PeerTimeout, match="does not answer"):
            await link.ping()
        with pytest.raises(PeerTimeout, match="too slowly"):
            await link.bandwidth()


async def test_a_slow_link_is_measured_for_a_short_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("exo.p2p.link._BULK_SECONDS", 0.0)
    async with lab() as found:
        ann, bob = await found.peer(ANN), await found.peer(BOB)
        assert await (await ann.link(bob)).bandwidth() > 0


async def test_what_a_notice_is_refused_for_is_logged(caplog: pytest.LogCaptureFixture):
    def refuse(_: str, __: Body) -> None:
        raise ModelNotFound("No such model.")

    async with lab() as found:
        ann, bob = await found.peer(ANN), await found.peer(BOB)
        bob.services.notices["say"] = refuse
        link = await ann.link(bob)
        link.notify("say", 1)
        await link.ping()
    assert "No such model" in caplog.text


@pytest.mark.parametrize("how", ["goodbye", "cut"])
async def test_when_a_link_ends_whatever_waits_on_it_ends_at_once(how: str):
    here, there = Gate(), Gate()
    async with lab() as found:
        ann, bob = await found.peer(ANN), await found.peer(BOB)
        bob.services.requests["gate"] = there.request
        bob.services.streams["gate"] = there.stream
        ann.services.requests["gate"] = here.request
        link = await ann.link(bob)
        other = bob.link_to(ann)

        async def read() -> None:
            async for _ in link.stream("gate", 1):
                pass

        waiting = [asyncio.create_task(link.request("gate")), asyncio.create_task(read())]
        back = asyncio.create_task(other.request("gate"))
        await asyncio.gather(here.entered.wait(), there.entered.wait())
        if how == "goodbye":
            other.close("enough")
        else:
            found.faults.cut(ANN.peer_id, BOB.peer_id)
        for error in await asyncio.gather(*waiting, back, return_exceptions=True):
            assert isinstance(error, LinkClosed)
            assert error.clean == (how == "goodbye")
        await asyncio.gather(here.cancelled.wait(), there.cancelled.wait())
        assert await ann.next(LinkDown) == LinkDown(BOB.peer_id, clean=how == "goodbye")
        assert await bob.next(LinkDown) == LinkDown(ANN.peer_id, clean=how == "goodbye")
        assert (await link.wait_closed()).clean == (how == "goodbye")
        for attempt in (link.request("gate"), link.ping(), anext(link.stream("gate"))):
            with pytest.raises(LinkClosed):
                await attempt


async def test_a_goodbye_says_why():
    async with lab() as found:
        ann, bob = await found.peer(ANN), await found.peer(BOB)
        link = await ann.link(bob)
        bob.link_to(ann).close("the node stops")
        assert "said goodbye: the node stops" in (await link.wait_closed()).message
        assert link.is_over
        assert link.closed


async def test_notices_before_a_goodbye_arrive():
    heard: list[Body] = []
    async with lab() as found:
        ann, bob = await found.peer(ANN), await found.peer(BOB)
        bob.services.notices["say"] = lambda _, body: heard.append(body)
        link = await ann.link(bob)
        for number in range(100):
            link.notify("say", number)
        link.close("leaving")
        await bob.next(LinkDown)
        assert heard == list(range(100))


async def test_a_peer_that_does_not_read_does_not_hold_up_a_close(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("exo.p2p.link._FAREWELL", 0.01)
    async with lab() as found:
        ann, bob = await found.peer(ANN), await found.peer(BOB)
        link = await ann.link(bob)
        found.faults.stall(ANN.peer_id, BOB.peer_id)
        link.notify("say", 1)
        link.close("leaving")
        await link.wait_closed()


async def test_a_frame_that_is_none_closes_the_link_with_a_reason(
    caplog: pytest.LogCaptureFixture,
):
    async with lab() as found:
        ann, bob = await found.peer(ANN), await found.peer(BOB)
        link = await ann.link(bob)
        await link._channel.send(encode(FrameType.REPLY, 99))
        assert "nobody opened" in (await link.wait_closed()).message
        assert await bob.next(LinkDown) == LinkDown(ANN.peer_id, clean=False)
    assert "is closed" in caplog.text


async def test_an_item_that_is_no_body_closes_the_link():
    gate = Gate()
    async with lab() as found:
        ann, bob = await found.peer(ANN), await found.peer(BOB)
        bob.services.streams["gate"] = gate.stream
        link = await ann.link(bob)
        async with aclosing(link.stream("gate", 1)) as items:
            await anext(items)
            await bob.link_to(ann)._channel.send(encode(FrameType.ITEM, 1, b"\xc1"))
            with pytest.raises(ProtocolError):
                await anext(items)
        assert "broke the protocol" in (await link.wait_closed()).message


@pytest.mark.parametrize("where", ["receiving", "sending"])
async def test_a_bug_in_the_link_does_not_leave_half_of_it(
    where: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    async with lab() as found:
        ann, bob = await found.peer(ANN), await found.peer(BOB)
        link = await ann.link(bob)

        def broken(_: object) -> None:
            raise ZeroDivisionError

        if where == "receiving":
            monkeypatch.setattr(link, "_handle", broken)
        else:
            monkeypatch.setattr(link._channel, "send", broken)
        with pytest.raises(LinkClosed):
            await link.ping()
        await link.wait_closed()
        await bob.next(LinkDown)
    assert caplog.records[0].levelno == logging.ERROR


async def test_a_handler_may_close_the_link_it_serves():
    async with lab() as found:
        ann, bob = await found.peer(ANN), await found.peer(BOB)

        async def leave(_: str, __: Body) -> Body:
            bob.links.drop(ANN.peer_id, "you asked")
            return None

        def drop(_: str, __: Body) -> None:
            ann.links.drop(BOB.peer_id, "you told")

        bob.services.requests["leave"] = leave
        ann.services.notices["drop"] = drop
        link = await ann.link(bob)
        with pytest.raises(LinkClosed, match="you asked"):
            await link.request("leave")
        await ann.next(LinkDown)
        await bob.next(LinkDown)
        await ann.link(bob)
        bob.link_to(ann).notify("drop", None)
        assert (await bob.next(LinkDown)).clean


async def test_frames_that_are_late_are_only_late():
    """With a delay on every frame, drawn from a seed, and a clock of the test's own."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await asyncio.sleep(0)

    async with lab() as found:
        found.faults.delay = (0.01, 0.5)
        found.faults._sleep = sleep
        ann, bob = await found.peer(ANN), await found.peer(BOB)
        bob.services.streams["count"] = count
        link = await ann.link(bob)
        assert [item async for item in link.stream("count", 20)] == list(range(20))
    assert min(slept) >= 0.01
    assert max(slept) <= 0.5
    assert len(set(slept)) > 20
