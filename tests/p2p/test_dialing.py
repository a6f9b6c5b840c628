from random import Random

from exo.p2p.dialing import Dialer, Target, Wish
from exo.p2p.events import Dial
from exo.p2p.options import CoreOptions

OPTIONS = CoreOptions(dials=2)


def always(target: Target, now: float) -> Wish | None:
    return Wish(target.addresses or ("/memory/1",), 1.0)


def never(target: Target, now: float) -> Wish | None:
    return None


def later(target: Target, now: float) -> Wish | None:
    return Wish((), None)


def homeless(target: Target, now: float) -> Wish | None:
    return Wish((), 1.0)


def new_dialer() -> Dialer:
    return Dialer(OPTIONS, Random(1))  # noqa: S311  pauses, no secrets


def next_dial(dialer: Dialer, now: float) -> float:
    """When the next dial comes after `now`."""
    at = dialer.next_due()
    assert at > now
    assert len(dialer.due(at, always)) == 1
    return at


def test_a_wanted_peer_is_dialled_at_once_and_once():
    dialer = new_dialer()
    dialer.want("B", 5.0)
    assert dialer.next_due() == 5.0
    assert dialer.due(5.0, always) == [Dial("B", ("/memory/1",))]
    dialer.want("B", 5.1)
    assert dialer.due(5.1, always) == []


def test_pauses_grow_up_to_a_bound_and_are_not_all_the_same():
    dialer = new_dialer()
    dialer.want("B", 0.0)
    now, pauses = 0.0, []
    dialer.due(now, always)
    for _ in range(12):
        dialer.failed("B", now, always)
        at = next_dial(dialer, now)
        pauses.append(at - now)
        now = at
    assert pauses[0] < 0.3
    assert all(0.75 <= pause <= 1.25 for pause in pauses[4:])
    assert len(set(pauses)) == len(pauses)


def test_a_peer_wanted_again_is_dialled_at_once():
    dialer = new_dialer()
    dialer.want("B", 0.0)
    dialer.due(0.0, always)
    dialer.failed("B", 1.0, always)
    dialer.want("B", 1.01)
    assert dialer.due(1.01, always)


def test_who_is_not_wanted_any_more_is_forgotten():
    dialer = new_dialer()
    dialer.want("B", 0.0)
    assert dialer.due(0.0, never) == []
    assert dialer.next_due() == float("inf")


def test_who_is_not_wanted_now_is_looked_at_again():
    dialer = new_dialer()
    dialer.want("B", 0.0)
    assert dialer.due(0.0, later) == []
    assert 20 < dialer.next_due() < 40


def test_without_an_address_nobody_is_dialled():
    dialer = new_dialer()
    dialer.want("B", 0.0)
    assert dialer.due(0.0, homeless) == []
    assert dialer.next_due() > 20


def test_a_linked_peer_is_not_dialled():
    dialer = new_dialer()
    dialer.want("B", 0.0)
    dialer.due(0.0, always)
    dialer.up("B", (), 0.1)
    assert dialer.next_due() == float("inf")
    dialer.lost("B", 1.0)
    assert 1.0 < dialer.next_due() < 1.5


def test_so_many_at_once():
    dialer = new_dialer()
    for name in "BCD":
        dialer.want(name, 0.0)
    assert [dial.peer_id for dial in dialer.due(0.0, always)] == ["B", "C"]
    dialer.failed("B", 0.1, always)
    assert [dial.peer_id for dial in dialer.due(0.1, always)] == ["D"]


def test_a_dial_that_is_not_answered_is_given_up():
    dialer = new_dialer()
    dialer.want("B", 0.0)
    dialer.due(0.0, always)
    assert dialer.next_due() == OPTIONS.flight
    assert dialer.due(OPTIONS.flight, always) == []
    assert dialer.due(OPTIONS.flight + 1, always)


def test_what_discovery_says_is_added_to_what_is_known():
    dialer = new_dialer()
    dialer.found("B", ("/memory/1",), 0.0)
    dialer.found("B", ("/memory/2", "/memory/1"), 0.0)
    assert dialer.next_due() == float("inf")
    dialer.want("B", 0.0)
    assert dialer.due(0.0, always) == [Dial("B", ("/memory/2", "/memory/1"))]


def test_an_address_of_the_user_is_dialled_and_known_for_its_peers():
    dialer = new_dialer()
    address = ("/memory/7",)
    dialer.found(None, address, 0.0)
    assert dialer.due(0.0, always) == [Dial(None, address)]
    dialer.up("B", address, 0.1)
    assert dialer.due(1.0, always) == []
    dialer.gone("B", 2.0)
    assert dialer.due(2.5, always) == [Dial(None, address)]
    dialer.want("B", 3.0)
    assert dialer.due(3.0, always) == [Dial("B", address)]
