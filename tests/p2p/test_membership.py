"""What one node makes of what it sees of others. How several get on is in `test_cluster`."""

from dataclasses import replace

import pytest

from exo.errors import BodyTooLarge
from exo.p2p.core import (
    Core,
    CoreOptions,
    Dial,
    DialFailed,
    Disconnect,
    Found,
    Leave,
    LinkDown,
    LinkUp,
    MemberChanged,
    Moved,
    PeerInfo,
    Stamp,
    Status,
    Tick,
)
from exo.p2p.messages import Accused, Goodbye, Gossip, Heartbeat, Vouch
from exo.p2p.peers import Fact
from tests.p2p.facts import Driver, fact, heartbeat, peer, sent, those

OPTIONS = CoreOptions()
# Seconds after which a silent peer is surely suspect, and after which it is surely dead.
SUSPECT = OPTIONS.timeout_min + 0.1
DEAD = SUSPECT + OPTIONS.suspicion


@pytest.fixture
def a() -> Driver:
    return Driver(Core(peer("A"), None))


def lose(driver: Driver, name: str, *, clean: bool = False) -> list:
    return driver.handle(LinkDown(name, clean))


def moved(name: str) -> PeerInfo:
    return replace(peer(name), addresses=("/memory/8",))


def refused(driver: Driver, name: str) -> list:
    return driver.handle(DialFailed(name, (f"/memory/{name}",), refused=True))


# Coming.


def test_a_peer_is_a_member_when_it_was_heard(a: Driver):
    a.handle(LinkUp(peer("B")))
    assert a.status("B") is None
    actions = a.beat("B", fact("B"))
    assert a.status("B") is Status.ALIVE
    assert [changed.member.peer_id for changed in those(actions, MemberChanged)] == ["B"]


def test_a_linked_peer_is_greeted_with_all_that_is_known(a: Driver):
    a.meet("B")
    (hello,) = sent(a.handle(LinkUp(peer("C"))), Heartbeat, "C")
    assert [each.peer.peer_id for each in hello.gossip.facts] == ["A", "B"]


def test_a_member_that_is_heard_of_is_dialled(a: Driver):
    actions = a.meet("B") + a.beat("B", fact("C"))
    assert a.status("C") is Status.ALIVE
    assert Dial("C", ("/memory/C",)) in actions


def test_an_address_that_leads_here_is_not_dialled_again(a: Driver):
    (dial,) = those(a.handle(Found(None, ("/memory/9",))), Dial)
    a.handle(LinkUp(peer("A"), dialled=dial.addresses))
    assert those(a.wait(60), Dial) == []
    assert list(a.core.members) == ["A"]


def test_an_address_of_the_user_is_tried_for_ever(a: Driver):
    a.handle(Found(None, ("/memory/9",)))
    for hour in range(3):
        a.handle(DialFailed(None, ("/memory/9",), refused=True), 3600.0 * hour)
        assert those(a.wait(7), Dial) == [Dial(None, ("/memory/9",))]


def test_a_found_peer_is_tried_for_an_hour(a: Driver):
    actions = a.handle(Found("B", ("/memory/B",)))
    assert Dial("B", ("/memory/B",)) in actions
    a.handle(DialFailed("B", ("/memory/B",), refused=True))
    assert those(a.wait(60), Dial)
    a.handle(DialFailed("B", ("/memory/B",), refused=True), OPTIONS.remember + 100)
    assert those(a.wait(60), Dial) == []


# Going.


def test_a_broken_link_makes_suspect_at_once_and_is_dialled_at_once(a: Driver):
    a.meet("B")
    a.wait(1)
    actions = lose(a, "B")
    assert a.status("B") is Status.SUSPECT
    assert those(actions, Dial)


def test_a_refusal_is_the_end(a: Driver):
    a.meet("B")
    a.wait(1)
    lose(a, "B")
    refused(a, "B")
    assert a.status("B") is Status.DEAD


def test_a_refusal_says_nothing_of_one_who_never_was_linked(a: Driver):
    a.meet("B")
    a.beat("B", fact("C"))
    refused(a, "C")
    assert a.status("C") is Status.ALIVE


def test_an_unreachable_peer_gets_its_time(a: Driver):
    a.meet("B")
    a.wait(1)
    lose(a, "B")
    a.handle(DialFailed("B", ("/memory/B",), refused=False))
    a.wait(OPTIONS.suspicion / 2)
    assert a.status("B") is Status.SUSPECT
    a.wait(OPTIONS.suspicion)
    assert a.status("B") is Status.DEAD


def test_a_clean_close_is_no_goodbye(a: Driver):
    a.meet("B")
    a.wait(1)
    lose(a, "B", clean=True)
    assert a.status("B") is Status.SUSPECT


def test_a_goodbye_is_believed_at_once_and_nobody_is_dialled(a: Driver):
    a.meet("B")
    a.hear("B", Goodbye(0))
    assert a.status("B") is Status.LEFT
    assert those(lose(a, "B", clean=True), Dial) == []
    assert those(a.wait(60), Dial) == []


def test_a_silent_peer_is_suspect_then_dead_and_its_link_is_dropped(a: Driver):
    a.meet("B")
    a.wait(SUSPECT)
    assert a.status("B") is Status.SUSPECT
    actions = a.wait(DEAD - SUSPECT + 0.1)
    assert a.status("B") is Status.DEAD
    assert [drop.peer_id for drop in those(actions, Disconnect)] == ["B"]
    assert those(actions, Dial)


def test_a_suspect_that_is_heard_lives(a: Driver):
    a.meet("B")
    a.wait(SUSPECT)
    a.beat("B")
    assert a.status("B") is Status.ALIVE


def test_the_dead_are_dialled_often_for_ten_minutes_and_then_seldom(a: Driver):
    def dials(seconds: float) -> int:
        found, end = 0, a.now + seconds
        while a.now < end:
            for dial in those(a.wait(0.1), Dial):
                found += 1
                a.handle(DialFailed(dial.peer_id, dial.addresses, refused=False))
        return found

    a.meet("B")
    assert dials(DEAD + 20) > 15
    dials(600)
    assert dials(120) < 10


def test_the_dead_are_forgotten(a: Driver):
    a.meet("B")
    a.wait(DEAD)
    assert a.status("B") is Status.DEAD
    a.handle(Tick(), OPTIONS.remember + 700)
    assert a.status("B") is None


def test_who_leaves_tells_all_and_does_nothing_more(a: Driver):
    a.meet("B")
    a.meet("C")
    assert sent(a.handle(Leave()), Goodbye) == [Goodbye(0), Goodbye(0)]
    assert a.beat("B") == []


# Incarnations.


def test_one_who_is_held_for_gone_raises_its_incarnation(a: Driver):
    a.meet("B")
    actions = a.hear("B", Accused(0))
    assert a.core.members["A"].incarnation == 1
    assert sent(actions, Heartbeat, "B")[0].pulse.incarnation == 1
    assert a.hear("B", Accused(0)) == []


@pytest.mark.parametrize("status", [Status.DEAD, Status.LEFT])
def test_so_does_one_who_hears_that_it_is_gone(a: Driver, status: Status):
    a.meet("B")
    a.beat("B", fact("A", status, 4))
    assert a.core.members["A"].incarnation == 5


def test_the_facts_of_an_earlier_life_are_outbid(a: Driver):
    a.meet("B")
    a.beat("B", fact("A", Status.ALIVE, 0, boot="earlier"))
    assert a.core.members["A"].incarnation == 1


def test_the_dead_do_not_come_back_by_hearsay(a: Driver):
    a.meet("B")
    a.meet("C")
    a.wait(1)
    a.beat("B")
    lose(a, "C")
    refused(a, "C")
    a.beat("B", fact("C"))
    assert a.status("C") is Status.DEAD
    a.beat("B", fact("C", Status.ALIVE, 1))
    assert a.status("C") is Status.ALIVE


def test_the_dead_come_back_when_they_have_refuted_it(a: Driver):
    a.meet("B")
    a.wait(DEAD)
    actions = a.handle(LinkUp(peer("B")))
    assert sent(actions, Accused, "B") == [Accused(0)]
    a.beat("B")
    assert a.status("B") is Status.DEAD
    a.beat("B", fact("B", incarnation=1), incarnation=1)
    assert a.status("B") is Status.ALIVE


def test_one_who_was_started_again_is_the_same_peer(a: Driver):
    a.meet("B")
    a.wait(0.1)
    lose(a, "B")
    actions = a.handle(LinkUp(peer("B", boot="2")))
    assert [each.member.status for each in those(actions, MemberChanged)] == [Status.DEAD]
    assert sent(actions, Accused, "B") == [Accused(0)]
    a.beat("B", fact("B", incarnation=1, boot="2"), incarnation=1)
    assert a.core.members["B"].boot == "2"
    assert sorted(a.core.members) == ["A", "B"]


def test_who_is_heard_is_not_dead_whatever_others_say(a: Driver):
    a.meet("B")
    a.meet("C")
    actions = a.beat("B", fact("C", Status.DEAD))
    assert a.status("C") is Status.ALIVE
    assert sent(actions, Accused, "C") == [Accused(0)]


def test_who_has_not_been_heard_is_dead_if_others_say_so(a: Driver):
    a.meet("B")
    a.meet("C")
    a.wait(1.5)
    actions = a.beat("B", fact("C", Status.DEAD))
    assert a.status("C") is Status.DEAD
    assert those(actions, Disconnect)


# Hearing through others.


def missing(actions: list) -> set[str]:
    return {name for beat in sent(actions, Heartbeat) for name in beat.pulse.missing}


def test_who_vouches_for_a_missing_member_keeps_it_alive(a: Driver):
    a.meet("B")
    a.meet("C")
    for sequence in range(10, 30):
        asked = missing(a.wait(0.3))
        hello = heartbeat(sequence + 100)
        vouch = Vouch("C", 0, sequence, {"free": sequence})
        a.hear("B", replace(hello, vouches=(vouch,)))
    assert asked == {"C"}
    assert a.status("C") is Status.ALIVE
    assert a.core.members["C"].metadata == {"free": 29}


def test_an_old_heartbeat_is_no_sign_of_life(a: Driver):
    a.meet("B")
    a.meet("C")
    for sequence in range(10, 30):
        a.wait(0.3)
        hello = heartbeat(sequence + 100)
        a.hear("B", replace(hello, vouches=(Vouch("C", 0, 10, {}),)))
    assert a.status("C") is Status.DEAD


def test_a_node_vouches_for_whom_it_hears(a: Driver):
    a.meet("B")
    a.meet("C", metadata={"free": 3})
    a.beat("B", missing=("C", "D"))
    vouches = [each for beat in sent(a.wait(0.5), Heartbeat, "B") for each in beat.vouches]
    assert vouches == [Vouch("C", 0, 2, {"free": 3})]


def test_a_link_that_brings_nothing_is_given_up_though_others_vouch(a: Driver):
    a.meet("B")
    a.meet("C")
    actions = []
    for sequence in range(10, 30):
        actions += a.wait(0.3)
        a.hear("B", replace(heartbeat(sequence + 100), vouches=(Vouch("C", 0, sequence, {}),)))
    assert [drop.peer_id for drop in those(actions, Disconnect)] == ["C"]
    assert a.status("C") is Status.ALIVE


# Blaming oneself.


def test_a_node_that_was_suspended_suspects_nobody(a: Driver):
    a.meet("B")
    a.wait(0.5)
    a.handle(Tick(), a.now + 10)
    assert a.status("B") is Status.ALIVE
    a.wait(OPTIONS.timeout_min / 2)
    assert a.status("B") is Status.ALIVE
    a.wait(DEAD)
    assert a.status("B") is Status.DEAD


def test_nor_does_it_give_up_who_was_suspect(a: Driver):
    a.meet("B")
    a.wait(SUSPECT)
    a.beat("C")
    a.handle(Tick(), a.now + 10)
    assert a.status("B") is Status.SUSPECT


# What is said.


def test_what_others_said_last_is_known(a: Driver):
    a.meet("B", metadata={"free": 1})
    a.beat("B", metadata={"free": 2})
    assert a.core.members["B"].metadata == {"free": 2}


def test_heartbeats_carry_what_was_stamped(a: Driver):
    a.meet("B")
    a.handle(Stamp({"free": 7}))
    assert sent(a.wait(0.5), Heartbeat)[-1].pulse.metadata == {"free": 7}
    assert a.core.members["A"].metadata == {"free": 7}


def test_what_is_stamped_is_small(a: Driver):
    with pytest.raises(BodyTooLarge):
        a.handle(Stamp({"free": "x" * 5000}))


def test_a_node_that_moved_says_so_at_once(a: Driver):
    a.meet("B")
    (beat,) = sent(a.handle(Moved(("/memory/8",))), Heartbeat)
    assert beat.gossip.facts[0] == Fact(moved("A"), Status.ALIVE, 1)


def test_a_member_that_moved_is_known_at_its_new_address(a: Driver):
    a.meet("B")
    actions = a.beat("B", Fact(moved("B"), Status.ALIVE, 1), incarnation=1)
    assert a.core.members["B"].addresses == ("/memory/8",)
    assert [changed.member.info for changed in those(actions, MemberChanged)] == [moved("B")]


def test_a_greeting_from_before_the_move_undoes_nothing(a: Driver):
    a.meet("B")
    a.meet("C")
    lose(a, "B")
    a.beat("C", Fact(moved("B"), Status.ALIVE, 1))
    a.handle(LinkUp(peer("B")))
    a.beat("B", incarnation=1)
    assert a.core.members["B"].addresses == ("/memory/8",)


def test_who_is_linked_again_is_told_again_of_this_node_alone(a: Driver):
    a.meet("B")
    a.meet("C")
    lose(a, "B")
    (hello,) = sent(a.handle(LinkUp(peer("B"))), Heartbeat, "B")
    assert hello.gossip.facts == (fact("A"),)


def test_what_was_acknowledged_is_not_told_again(a: Driver):
    a.meet("B")
    told = sent(a.wait(0.5), Heartbeat, "B")[-1].gossip
    assert told.facts
    answer = heartbeat(50)
    a.hear("B", replace(answer, gossip=Gossip((), 0, 0, 0, told.end)))
    assert not any(beat.gossip for beat in sent(a.wait(1), Heartbeat, "B"))


def test_all_is_told_again_if_the_lists_stay_unlike(a: Driver):
    a.meet("B")
    told = sent(a.wait(0.5), Heartbeat, "B")[-1].gossip
    a.hear("B", replace(heartbeat(50), gossip=Gossip((), 0, 0, 0, told.end)))
    for _ in range(3):
        a.beat("B", digest=12345)
    again = sent(a.wait(0.5), Heartbeat, "B")[-1].gossip
    assert again.round == 1
    assert len(again.facts) == 2


def test_a_node_with_too_many_addresses_tells_fewer(a: Driver):
    a.meet("B")
    (beat,) = sent(a.handle(Moved(("a b", *(f"/memory/{n}" for n in range(60))))), Heartbeat)
    assert beat.gossip.facts[0].peer.addresses == tuple(f"/memory/{n}" for n in range(16))


# Large clusters.


def test_in_a_large_cluster_few_are_spoken_to():
    names = [f"{number:03d}" for number in range(500)]
    driver = Driver(Core(peer("250"), None))
    driver.meet("000")
    actions = driver.beat("000", *(fact(name) for name in names if name != "250"))
    while dials := those(actions, Dial):
        actions = [more for dial in dials for more in driver.handle(LinkUp(peer(dial.peer_id)))]
    expected = {"246", "247", "248", "249", "251", "252", "253", "254", "497", "498", "499"}
    assert set(driver.core._membership._circle.partners) == expected


def test_a_node_of_a_large_cluster_that_hears_nobody_is_alone():
    names = [f"{number:03d}" for number in range(100)]
    driver = Driver(Core(peer("050"), None))
    driver.meet("000")
    driver.beat("000", *(fact(name) for name in names if name != "050"))
    driver.wait(2 * DEAD)
    assert driver.core.members.living == ["050"]
