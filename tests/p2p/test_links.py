"""Which links there are: one per peer, whoever dials, and none with strangers."""

import asyncio
import logging
from contextlib import suppress

import pytest

from exo.errors import LinkClosed
from exo.p2p.limiter import FREE_FAILURES, PAUSE
from exo.p2p.link import Body, Services
from exo.p2p.link_events import DialFailed, LinkDown, LinkUp
from exo.p2p.links import LinkLimits
from exo.p2p.refusals import Reason
from tests.p2p.nodes import lab
from tests.p2p.people import ANN, BOB, EVE

QUICK = LinkLimits(alive=0.01)


async def who(peer_id: str, _: Body) -> Body:
    return peer_id


def answering() -> Services:
    return Services(requests={"who": who})


async def test_an_event_tells_who_is_there():
    async with lab() as found:
        ann, bob = await found.peer(ANN), await found.peer(BOB)
        ann.dial(bob)
        peer = (await ann.next(LinkUp)).peer
        hello = bob.hello()
        assert (peer.peer_id, peer.name, peer.version) == (BOB.peer_id, hello.name, "0.1.0")
        assert (peer.boot, peer.addresses, peer.eligible) == ("boot", (), True)
        assert (await bob.next(LinkUp)).peer.peer_id == ANN.peer_id
        assert [link.peer_id for link in ann.links.all()] == [BOB.peer_id]
        assert ann.links.get(EVE.peer_id) is None
        assert ann.links.listening == (ann.address,)


async def test_the_event_comes_before_anything_that_the_peer_says():
    async with lab() as found:
        ann, bob = await found.peer(ANN), await found.peer(BOB)
        heard: list[int] = []
        bob.services.notices["say"] = lambda *_: heard.append(bob.events.qsize())
        ann.dial(bob)
        await ann.next(LinkUp)
        ann.link_to(bob).notify("say", None)
        await ann.link_to(bob).ping()
        assert heard == [1]


@pytest.mark.parametrize("rounds", range(5))
async def test_when_both_dial_at_once_there_is_one_link_and_no_request_is_lost(rounds: int):
    async with lab() as found:
        ann = await found.peer(ANN, services=answering())
        bob = await found.peer(BOB, services=answering())
        ann.dial(bob)
        for _ in range(rounds):
            await asyncio.sleep(0)
        bob.dial(ann)
        await asyncio.gather(ann.next(LinkUp), bob.next(LinkUp))
        here, there = ann.link_to(bob), bob.link_to(ann)
        assert here.outgoing != there.outgoing
        asked = [here.request("who"), there.request("who")] * 1
        assert await asyncio.gather(*asked) == [ANN.peer_id, BOB.peer_id]
        await asyncio.gather(*ann.links._tasks, *bob.links._tasks)
        assert ann.events.empty()
        assert bob.events.empty()
        assert (ann.link_to(bob), bob.link_to(ann)) == (here, there)
        assert await here.request("who") == ANN.peer_id
        assert not ann.links.refused
        assert not bob.links.refused


async def test_many_nodes_that_all_dial_each_other():
    from tests.p2p.people import identity  # noqa: PLC0415  only here

    async with lab() as found:
        peers = [await found.peer(identity(str(n)), services=answering()) for n in range(8)]
        for one in peers:
            for other in peers:
                if one is not other:
                    one.dial(other)
        for one in peers:
            seen = {(await one.next(LinkUp)).peer.peer_id for _ in range(7)}
            assert seen == {other.peer_id for other in peers if other is not one}
        asked = [
            one.link_to(other).request("who")
            for one in peers
            for other in peers
            if one is not other
        ]
        answers = await asyncio.gather(*asked)
        assert answers == [one.peer_id for one in peers for _ in range(7)]
        for one in peers:
            await asyncio.gather(*one.links._tasks)
            assert one.events.empty()


async def test_who_is_linked_is_not_dialled_again():
    async with lab() as found:
        ann, bob = await found.peer(ANN), await found.peer(BOB)
        await ann.link(bob)
        ann.dial(bob)
        assert not ann.links._dials


async def test_a_dial_into_the_blue_tells_who_lives_there():
    """Also of a peer that is linked already, and of this node itself."""
    async with lab() as found:
        ann, bob = await found.peer(ANN), await found.peer(BOB)
        for one, other in ((ann, bob), (bob, ann)):
            one.dial(other, blindly=True)
            up = await one.next(LinkUp)
            assert (up.peer.peer_id, up.dialled) == (other.peer_id, (other.address,))
            if one is ann:
                assert (await bob.next(LinkUp)).dialled == ()
        ann.dial(ann, blindly=True)
        up = await ann.next(LinkUp)
        assert (up.peer.peer_id, up.dialled) == (ANN.peer_id, (ann.address,))
        assert len(ann.links.all()) == len(bob.links.all()) == 1
        assert not ann.links.refused + bob.links.refused


@pytest.mark.parametrize("gone", [True, False])
async def test_a_dial_that_fails_is_told(gone: bool):
    async with lab() as found:
        ann, bob = await found.peer(ANN), await found.peer(BOB)
        if gone:
            await bob.links.close()
        else:
            found.faults.partition({ANN.peer_id}, {BOB.peer_id})
        ann.dial(bob)
        failed = await ann.next(DialFailed)
        assert failed == DialFailed(BOB.peer_id, (bob.address,), refused=gone)


async def test_another_peer_than_the_one_dialled_is_no_link():
    async with lab() as found:
        ann, bob = await found.peer(ANN), await found.peer(BOB)
        ann.links.dial(EVE.peer_id, [bob.address])
        assert await ann.next(DialFailed) == DialFailed(EVE.peer_id, (bob.address,), refused=False)
        ann.links.dial(EVE.peer_id, [f"{bob.address}/p2p/{BOB.peer_id}", "nonsense"])
        await ann.next(DialFailed)
        assert bob.events.empty()


async def test_the_first_address_that_leads_to_the_peer_is_taken():
    async with lab() as found:
        ann, bob, eve = [await found.peer(who) for who in (ANN, BOB, EVE)]
        ann.links.dial(BOB.peer_id, ["/memory/7", eve.address, "nonsense", bob.address])
        await ann.next(LinkUp)
        assert ann.link_to(bob).address == bob.address
        assert eve.events.empty()


STRANGERS: dict[str, tuple[dict[str, object], Reason, Reason, bool]] = {
    "another cluster": ({"cluster": "lab"}, "other_cluster", "other_cluster", False),
    "a newer protocol": ({"protocols": (2,)}, "older_than_peer", "newer_than_peer", True),
    "another secret": ({"secret": b"wrong"}, "wrong_secret", "wrong_secret", True),
    "no secret": ({}, "peer_open", "peer_locked", True),
}


@pytest.mark.parametrize("name", STRANGERS)
async def test_a_stranger_is_refused_and_counted(name: str, caplog: pytest.LogCaptureFixture):
    options, here, there, loud = STRANGERS[name]
    if name != "no secret":
        options = {"secret": b"right", **options}
    async with lab() as found:
        ann = await found.peer(ANN, secret=b"right")
        eve = await found.peer(EVE, **options)
        for count in (1, 2):
            eve.dial(ann)
            assert await eve.next(DialFailed) == DialFailed(ANN.peer_id, (ann.address,), False)
            assert eve.links.refused == {there: count}
            assert ann.links.refused == {here: count}
        assert ann.events.empty()
        assert not ann.links.all()
    warnings = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(warnings) == 2 * loud, "each side tells its user once"


async def test_locking_and_rotating_leave_links_alone():
    async with lab() as found:
        ann, bob, eve = [await found.peer(who, services=answering()) for who in (ANN, BOB, EVE)]
        link = await ann.link(bob)
        for secret in (b"one", b"two"):
            ann.admission.secret = bob.admission.secret = secret
            assert await link.request("who") == ANN.peer_id
            eve.dial(ann)
            await eve.next(DialFailed)
        eve.admission.secret = b"two"
        await eve.link(ann)


async def test_who_fails_to_prove_the_secret_again_and_again_has_to_wait():
    async with lab() as found:
        ann = await found.peer(ANN, secret=b"right")
        eve = await found.peer(EVE, secret=b"wrong")

        async def attempt() -> None:
            eve.dial(ann)
            await eve.next(DialFailed)

        for _ in range(FREE_FAILURES):
            await attempt()
        assert ann.links.refused == {"wrong_secret": FREE_FAILURES}
        await attempt()
        assert ann.links.refused["too_many_failures"] == 1
        eve.admission.secret = b"right"
        await attempt()
        ann.now += PAUSE
        await eve.link(ann)


async def test_a_peer_that_lost_its_link_gets_another():
    """Ann decides, and still sees the old one."""
    async with lab() as found:
        ann, bob = await found.peer(ANN, limits=QUICK), await found.peer(BOB, limits=QUICK)
        old = await ann.link(bob)
        there = bob.link_to(ann)
        found.faults.stall(ANN.peer_id, BOB.peer_id)
        there.abort("the network was away")
        await bob.next(LinkDown)
        found.faults._stalled.clear()
        bob.dial(ann)
        assert await ann.next(LinkDown) == LinkDown(BOB.peer_id, clean=False)
        await asyncio.gather(ann.next(LinkUp), bob.next(LinkUp))
        assert ann.link_to(bob) is not old
        assert await bob.link_to(ann).ping() >= 0


@pytest.mark.parametrize("boot", ["first", "second"])
@pytest.mark.parametrize("turned", [False, True])
async def test_a_link_that_is_silent_is_replaced(turned: bool, boot: str):
    """By the same life of the peer, or by the next, whichever side decides."""
    async with lab() as found:
        stays = await found.peer(BOB if turned else ANN, limits=QUICK)
        first = await found.peer(ANN if turned else BOB, boot="first")
        await stays.link(first)
        deaf = stays.link_to(first)
        deaf._channel.receive = asyncio.Event().wait  # type: ignore[method-assign]
        deaf._reader.cancel()
        second = await found.peer(ANN if turned else BOB, boot=boot)
        second.dial(stays)
        assert await stays.next(LinkDown) == LinkDown(second.peer_id, clean=False)
        await asyncio.gather(stays.next(LinkUp), second.next(LinkUp))
        assert stays.link_to(second) is not deaf
        assert stays.link_to(second).hello.boot == boot
        assert await second.link_to(stays).ping() >= 0


@pytest.mark.parametrize("turned", [False, True])
async def test_a_second_node_with_the_same_id_is_refused_while_the_first_lives(
    turned: bool, caplog: pytest.LogCaptureFixture
):
    async with lab() as found:
        stays = await found.peer(BOB if turned else ANN)
        original = await found.peer(ANN if turned else BOB, boot="original")
        link = await stays.link(original)
        copy = await found.peer(ANN if turned else BOB, boot="copy")
        copy.dial(stays)
        await copy.next(DialFailed)
        assert stays.links.refused == {"duplicate_id": 1}
        assert copy.links.refused == {"duplicate_id_of_mine": 1}
        assert await link.ping() >= 0
        assert "claim the id" in caplog.text
        assert "identity.key" in caplog.text


async def test_a_node_with_this_nodes_own_id_is_refused(caplog: pytest.LogCaptureFixture):
    async with lab() as found:
        ann, copy = await found.peer(ANN, boot="one"), await found.peer(ANN, boot="copy")
        copy.dial(ann, blindly=True)
        await copy.next(DialFailed)
        assert ann.links.refused == copy.links.refused == {"copied_identity": 1}
        assert "this node's own id" in caplog.text


async def test_drop_says_goodbye_and_can_be_linked_again():
    async with lab() as found:
        ann, bob = await found.peer(ANN), await found.peer(BOB)
        await ann.link(bob)
        ann.links.drop(BOB.peer_id, "out of date")
        ann.links.drop(EVE.peer_id, "never there")
        assert await ann.next(LinkDown) == LinkDown(BOB.peer_id, clean=True)
        assert await bob.next(LinkDown) == LinkDown(ANN.peer_id, clean=True)
        await bob.link(ann)


async def test_closing_ends_everything_while_it_goes_on():
    """Links with requests on them, dials on their way, and connections half made."""

    async def never(_: str, __: Body) -> Body:
        await asyncio.Event().wait()

    async with lab() as found:
        ann = await found.peer(ANN, services=Services(requests={"never": never}))
        bob, eve = await found.peer(BOB), await found.peer(EVE)
        await bob.link(ann)
        asked = asyncio.create_task(bob.link_to(ann).request("never"))
        half = await found.network.transport(EVE.peer_id).connect(ann.address, ANN.peer_id)
        eve.dial(ann)
        await asyncio.sleep(0)
        await ann.links.close()
        with pytest.raises(LinkClosed):
            await asked
        with suppress(LinkClosed):
            await half.receive()  # Ann may have greeted already.
        with pytest.raises(LinkClosed):
            await half.receive()
        assert (await bob.next(LinkDown)).clean
        assert not ann.links.all()


async def test_closing_gives_up_dials():
    async with lab() as found:
        ann, bob = await found.peer(ANN), await found.peer(BOB)
        found.network.listeners[ann.address]._accept = _say_nothing
        bob.dial(ann)
        for _ in range(5):
            await asyncio.sleep(0)
        await bob.links.close()
        bob.dial(ann)
        assert not bob.links._tasks
        assert bob.events.empty()


async def test_a_peer_that_says_nothing_is_cut():
    limits = LinkLimits(handshake=0.01)
    async with lab() as found:
        ann = await found.peer(ANN, limits=limits)
        bob = await found.peer(BOB, limits=limits)
        channel = await found.network.transport(EVE.peer_id).connect(ann.address, None)
        await channel.receive()
        with pytest.raises(LinkClosed):
            await channel.receive()
        assert ann.links.refused == {"bad_introduction": 1}
        found.network.listeners[ann.address]._accept = _say_nothing
        bob.dial(ann)
        assert await bob.next(DialFailed) == DialFailed(ANN.peer_id, (ann.address,), False)


async def _say_nothing(_: object) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("seed", range(3))
async def test_connections_that_break_all_the_time(seed: int):
    """Requests fail with LinkClosed or succeed; links come back when dialled; nothing hangs."""
    async with lab() as found:
        found.faults.__init__(seed, break_chance=0.05)
        ann = await found.peer(ANN, services=answering())
        bob = await found.peer(BOB, services=answering())
        good = bad = 0
        while good < 100:
            if (link := ann.links.get(BOB.peer_id)) is None:
                ann.dial(bob)
                while not isinstance(await ann.events.get(), LinkUp | DialFailed):
                    pass
                continue
            try:
                assert await link.request("who") == ANN.peer_id
                good += 1
            except LinkClosed:
                bad += 1
        assert bad > 0


async def test_a_partition_is_silence_and_healing_brings_all_that_was_said():
    async with lab() as found:
        ann, bob = [await found.peer(who, services=answering()) for who in (ANN, BOB)]
        link = await ann.link(bob)
        found.faults.partition({ANN.peer_id}, {BOB.peer_id})
        asked = asyncio.create_task(link.request("who"))
        bob.dial(ann)
        for _ in range(20):
            await asyncio.sleep(0)
        assert not asked.done()
        assert ann.events.empty()
        found.faults.heal()
        assert await asked == ANN.peer_id
