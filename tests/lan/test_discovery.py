"""Discovery between hosts."""

from collections.abc import Callable, Iterator

import pytest

from .conftest import MakeLan
from .finder import Finder
from .lan import Lan

StartFinder = Callable[..., Finder]


@pytest.fixture
def lan(make_lan: MakeLan) -> Lan:
    return make_lan(2)


@pytest.fixture
def finder(lan: Lan) -> Iterator[StartFinder]:
    """Start a discovery on a host; one that still runs at the end must have had no trouble."""
    made: list[Finder] = []

    def start(host: int, **options: object) -> Finder:
        made.append(Finder(lan.hosts[host], **options))
        return made[-1]

    yield start
    for one in made:
        if one.runs:
            one.close()
            assert one.troubles == []


def test_hosts_find_each_other_by_both_families(finder: StartFinder):
    a, b = finder(0), finder(1)
    b_at = a.finds(b, "10.77.0.2", "fe80::ff:fe00:2")["addresses"]
    a_at = b.finds(a, "10.77.0.1", "fe80::ff:fe00:1")["addresses"]
    assert f"/ip6zone/eth0/ip6/fe80::ff:fe00:2/tcp/52416/p2p/{b.peer_id}" in b_at
    assert f"/ip4/10.77.0.1/tcp/52416/p2p/{a.peer_id}" in a_at


def test_who_comes_later_finds_who_is_there_and_is_found(finder: StartFinder):
    a = finder(0).started()
    b = finder(1)
    a.finds(b)
    b.finds(a)
    b.kill()
    again = finder(1, peer_id=b.peer_id)
    a.finds(again)
    again.finds(a)


def test_several_on_one_host_share_the_port(finder: StartFinder):
    a, b, c = finder(0), finder(0), finder(1)
    for one, others in ((a, {b, c}), (b, {a, c}), (c, {a, b})):
        one.finds_all(*others)


def test_a_goodbye_is_heard(finder: StartFinder):
    a, b = finder(0), finder(1)
    a.finds(b)
    b.finds(a)
    assert b.close()["peer_ids"] == [a.peer_id]
    c = finder(1)
    a.finds(c)
    assert a.close()["peer_ids"] == [c.peer_id]


def test_a_network_that_comes_later_is_used(lan: Lan, finder: StartFinder):
    lan.unplug(0)
    a, b = finder(0).started(), finder(1).started()
    assert "no network" in a.troubles[0]["text"]
    lan.plug(0)
    a.finds(b)
    b.finds(a)
    lan.unplug(0)
    a.logs("no network")
    lan.plug(0)
    a.logs("Looking for other nodes on eth0")
    c = finder(1)
    a.finds(c)
    c.finds(a)
    a.close()
    assert len(a.troubles) == 2


def test_a_card_that_comes_and_goes_is_followed(lan: Lan, finder: StartFinder):
    a, b = finder(0), finder(1)
    b.finds(a, "10.77.0.1")
    a.finds(b)
    ip = lan.add_card(0)
    a.logs("on eth0, eth1")
    b.finds(a, ip)
    lan.remove_card(0)
    a.logs("on eth0.")
    c = finder(1)
    assert ip not in str(c.finds(a)["addresses"])
    a.finds(c)


def test_a_new_address_is_told(lan: Lan, finder: StartFinder):
    a, b = finder(0), finder(1)
    b.finds(a, "10.77.0.1")
    lan.hosts[0].readdress("10.77.0.99")
    b.finds(a, "10.77.0.99")


def test_without_multicast_nobody_is_found_until_it_is_back(lan: Lan, finder: StartFinder):
    lan.block_multicast()
    a, b = finder(0, ask_every=0.1).started(), finder(1, ask_every=0.1).started()
    lan.heal()
    a.finds(b)
    b.finds(a)
    assert a.found == {b.peer_id}


def test_the_partition_of_a_switch_heals(lan: Lan, finder: StartFinder):
    """Neither host is told of anything, so one has to ask."""
    lan.partition([0], [1])
    a, b = finder(0, ask_every=0.1).started(), finder(1).started()
    lan.heal()
    a.finds(b)
    b.finds(a)


def test_a_cluster_finds_its_own(finder: StartFinder):
    a, other, b = finder(0), finder(0, cluster="other"), finder(1)
    a.finds(b)
    b.finds(a)
    seen = set(b.close()["peer_ids"])
    assert a.peer_id in seen
    assert b.found == {a.peer_id}
    other.close()
    assert other.found == set()


def test_a_host_that_changes_from_one_family_to_the_other(lan: Lan, finder: StartFinder):
    a, b = finder(0), finder(1)
    b.finds(a, "10.77.0.1")
    lan.hosts[0].namespace.ip("addr flush dev eth0 scope global")
    c = finder(1)
    assert "10.77.0.1/" not in str(c.finds(a)["addresses"])
    lan.hosts[0].namespace.ip("addr flush dev eth0", "addr add 10.77.0.9/24 dev eth0")
    c.finds(a, "10.77.0.9")
    a.finds(c, lan.hosts[1].ip)
