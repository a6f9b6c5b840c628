"""What goes wrong on a network, with four real hosts: they are one cluster again each time, with
the same instances, and nothing that runs is restarted.

Every test leaves the four of them running as one cluster, with the instance of `loaded`.
"""

import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

import pytest

from tests.e2e.daemon import Json

from .cluster import (
    PATIENCE,
    Cluster,
    answers,
    command,
    eventually,
    in_background,
    node_in,
    placement,
    runner_of,
    status_of,
)
from .conftest import MakeLan
from .host import Host

pytestmark = pytest.mark.e2e

# What stays the same of a runner as long as it lives.
LIFE = ("runner_id", "pid", "restarts")

# Of a client, after a network has healed.
RETRIES = 8

# What the daemons are right to warn of here.
EXPECTED = (
    "The master did not carry out a command",
    "did not get the",
    "is on this node only so far",
    "The runner",
    "There is no network",
)


@dataclass
class Loaded:
    """An instance on a host that is not the master, and its runner."""

    host: Host
    instance: Json
    model: str
    runner: Json

    def check(self, cluster: Cluster, retries: int = 0) -> None:
        """It is the same runner, and every host can use it, once all are one cluster: a host that
        is alone still would place the model anew."""
        cluster.agree()
        cluster.ready(self.instance)
        for host in cluster.hosts:
            now = runner_of(host, self.instance)
            assert {key: now[key] for key in LIFE} == {key: self.runner[key] for key in LIFE}
            answers(host, self.model, retries)


@pytest.fixture(scope="module")
def cluster(make_shared_lan: MakeLan, models: Path) -> Iterator[Cluster]:
    made = Cluster(make_shared_lan(4), models_dir=models)
    made.start()
    yield made
    made.check_logs(EXPECTED)


@pytest.fixture(scope="module")
def kept() -> list[Loaded]:
    """The instance that the last test left."""
    return []


@pytest.fixture
def loaded(cluster: Cluster, kept: list[Loaded]) -> Loaded:
    """The one instance that there is; another one only where the last one cannot serve."""
    followers = cluster.roles()[1]
    if kept and kept[0].host not in followers:
        followers[0].daemon.delete(kept.pop().instance)
    if not kept:
        # The one that becomes the master last.
        kept.append(load(cluster, min(followers, key=lambda host: host.node_id), "tiny"))
    return kept[0]


def load(cluster: Cluster, host: Host, model: str) -> Loaded:
    instance = cluster.create(host, host, model)
    return Loaded(host, instance, model, runner_of(host, instance))


def others(cluster: Cluster, *but: Host) -> list[Host]:
    return [host for host in cluster.hosts if host not in but]


def check_whole(cluster: Cluster, *instances: Json) -> None:
    """All are one cluster with one state and these instances alone; nobody is a ghost in it."""
    cluster.agree()
    state = cluster.equal_states()
    assert set(state["instances"]) == {one["instance_id"] for one in instances}
    assert len(state["nodes"]) == len(cluster.hosts)


def test_the_master_is_killed(cluster: Cluster, loaded: Loaded) -> None:
    master = cluster.master()
    master.kill()
    survivors = cluster.hosts
    assert cluster.master(*survivors) is not master
    loaded.check(cluster)
    term = cluster.agree(*survivors)
    cluster.start(master.number)
    assert cluster.agree() == term, "who comes back does not take over"
    loaded.check(cluster)
    check_whole(cluster, loaded.instance)


def test_the_cable_of_the_master_is_cut(cluster: Cluster, loaded: Loaded) -> None:
    """No connection is closed: it just falls silent. It goes on by itself meanwhile."""
    master = cluster.master()
    rest = others(cluster, master)
    cluster.lan.partition([host.number for host in rest])
    assert cluster.master(*rest) in rest
    for host in rest:
        answers(host, loaded.model)
    assert cluster.agree(master)["master_id"] == master.node_id
    cluster.lan.heal()
    loaded.check(cluster, RETRIES)
    check_whole(cluster, loaded.instance)


def test_the_cable_of_the_master_is_pulled(cluster: Cluster, loaded: Loaded) -> None:
    """It sees that its network is gone, and that it is back."""
    master = cluster.master()
    rest = others(cluster, master)
    cluster.lan.unplug(master.number)
    assert cluster.master(*rest) in rest
    cluster.agree(master)
    cluster.lan.plug(master.number)
    loaded.check(cluster, RETRIES)
    check_whole(cluster, loaded.instance)


def test_the_master_is_suspended(cluster: Cluster, loaded: Loaded) -> None:
    """As a laptop that sleeps: when it wakes, it believes to be the master still."""
    master = cluster.master()
    rest = others(cluster, master)
    master.suspend()
    new = cluster.master(*rest)
    for host in rest:
        answers(host, loaded.model)
    master.resume()
    loaded.check(cluster, RETRIES)
    assert cluster.master() is new
    check_whole(cluster, loaded.instance)


def test_a_follower_with_an_instance_is_suspended(cluster: Cluster, loaded: Loaded) -> None:
    asleep = loaded.host
    rest = others(cluster, asleep)
    asleep.suspend()
    cluster.agree(*rest)
    for host in rest:
        host.wait(lambda state: status_of(state, loaded.instance) == "failed")
    asleep.resume()
    loaded.check(cluster, RETRIES)
    check_whole(cluster, loaded.instance)


def test_a_partition_heals(cluster: Cluster, loaded: Loaded) -> None:
    """Each half has a master and works; together they have what both have made."""
    master, followers = cluster.roles()
    halves = ((master, loaded.host), tuple(host for host in followers if host is not loaded.host))
    cluster.lan.partition(*([host.number for host in half] for half in halves))
    whole = [loaded]
    for half, model in zip(halves, ("tiny-4bit", "tiny-indexed"), strict=True):
        cluster.agree(*half)
        instance = command(half[0], placement(half[0], half[1], model))
        cluster.ready(instance, *half)
        whole.append(Loaded(half[1], instance, model, runner_of(half[0], instance)))
    cluster.lan.heal()
    for one in whole:
        one.check(cluster, RETRIES)
    check_whole(cluster, *(one.instance for one in whole))
    for one, host in zip(whole[1:], (halves[1][1], master), strict=True):
        host.daemon.delete(one.instance)
    check_gone(cluster, *(one.instance for one in whole[1:]))


@pytest.mark.parametrize("longer", ["the one", "the others"])
def test_events_go_on_after_a_partition(cluster: Cluster, loaded: Loaded, longer: str) -> None:
    """Also where the log of the other part takes the place of a longer one."""
    half = others(cluster, loaded.host)
    cluster.lan.partition([host.number for host in half])
    cluster.agree(*half)
    cluster.agree(loaded.host)
    host = loaded.host if longer == "the one" else half[0]
    for _ in range(10):
        drain(host, host, draining=True)
        drain(host, host, draining=False)
    drained = half[1].node_id
    told = [event_later(host, drained) for host in (loaded.host, *half)]
    cluster.lan.heal()
    cluster.agree()
    drain(loaded.host, half[1], draining=True)
    for queue in told:
        assert queue.get(timeout=PATIENCE)["draining"]
    drain(loaded.host, half[1], draining=False)
    check_whole(cluster, loaded.instance)


def drain(asked: Host, host: Host, *, draining: bool) -> None:
    verb = "drain" if draining else "undrain"
    assert asked.daemon.http.post(f"/nodes/{host.node_id}/{verb}").status_code == 200


def event_later(host: Host, drained: str) -> "Queue[Json]":
    """Where the first event about that node's draining will be that a host tells of from now on."""
    since = host.state()["index"]
    found: Queue[Json] = Queue()

    def is_it(event: Json) -> bool:
        return event["type"] == "NodeDraining" and event["node_id"] == drained

    thread = threading.Thread(target=lambda: found.put(host.daemon.follow(is_it, since)))
    thread.daemon = True  # It may wait in vain.
    thread.start()
    return found


def test_a_command_whose_answer_is_lost_with_the_master(cluster: Cluster, loaded: Loaded) -> None:
    """The master carries it out, and dies before the one who forwarded it hears of that."""
    master = cluster.master()
    asked, other = others(cluster, master, loaded.host)
    body = placement(asked, loaded.host, "tiny-4bit")
    # A new link is measured after some seconds: what is sent for that is in the way of a command
    # when nothing of it is acknowledged any more.
    asked.wait(lambda state: is_measured(state, asked, master))
    cluster.lan.block(master.number, asked.number)
    try:
        with in_background(lambda: command(asked, body, "one-key")) as answer:
            other.wait(lambda state: len(state["instances"]) == 2)
            master.kill()
            instance = answer()
    finally:
        cluster.lan.heal()
    check_command(cluster, loaded, instance, body)
    cluster.start(master.number)
    check_whole(cluster, loaded.instance)


def is_measured(state: Json, one: Host, other: Host) -> bool:
    """Whether the bandwidth between two hosts is known, both ways."""
    pair = {one.node_id, other.node_id}
    links = [x for x in state["topology"]["links"] if {x["from"], x["to"]} == pair]
    return len(links) == 2 and all(link["bandwidth"] for link in links)


def test_a_command_that_the_master_never_saw(cluster: Cluster, loaded: Loaded) -> None:
    """It stands still when the command is sent to it, and is killed then."""
    master = cluster.master()
    asked = others(cluster, master, loaded.host)[0]
    body = placement(asked, loaded.host, "tiny-4bit")
    master.suspend()
    with in_background(lambda: command(asked, body, "another-key")) as answer:
        master.kill()
        instance = answer()
    check_command(cluster, loaded, instance, body)
    cluster.start(master.number)
    check_whole(cluster, loaded.instance)


def check_command(cluster: Cluster, loaded: Loaded, instance: Json, body: Json) -> None:
    """It was carried out once, and sent again to anyone it is the same."""
    cluster.agree()
    both = {loaded.instance["instance_id"], instance["instance_id"]}
    for host in cluster.hosts:
        host.wait(lambda state: set(state["instances"]) == both)
        assert command(host, body, instance["command_id"])["instance_id"] == instance["instance_id"]
    cluster.hosts[0].daemon.delete(instance)
    check_gone(cluster, instance)


def check_gone(cluster: Cluster, *instances: Json) -> None:
    for host in cluster.hosts:
        for one in instances:
            host.wait(lambda state, one=one: status_of(state, one) is None)


def test_a_host_gets_another_address(cluster: Cluster, loaded: Loaded) -> None:
    """As with a new lease: it is the same node, at another place."""
    host = loaded.host
    for ip in ("10.77.0.99", host.ip):
        old = host.ip
        host.readdress(ip)
        for other in cluster.hosts:
            eventually(lambda old=old, at=other: is_shown(host, at.state(), old))
        loaded.check(cluster, RETRIES)
        check_whole(cluster, loaded.instance)


def is_shown(host: Host, state: Json, old: str) -> bool:
    """Whether a state has a host's address, and not the old one any more."""
    links = str(node_in(state, host.node_id)["links"])
    return f"/ip4/{host.ip}/" in links and f"/ip4/{old}/" not in links


def test_all_lose_their_power(cluster: Cluster, loaded: Loaded, kept: list[Loaded]) -> None:
    """They start again together, and the instance is there: nobody has to ask."""
    for host in cluster.hosts:
        cluster.lan.power_cut(host.number)
    cluster.lan.heal()
    cluster.start()
    cluster.ready(loaded.instance)
    for host in cluster.hosts:
        answers(host, "tiny", RETRIES)
    check_whole(cluster, loaded.instance)
    kept[0].runner = runner_of(loaded.host, loaded.instance)


def test_a_host_loses_its_disk(cluster: Cluster, loaded: Loaded) -> None:
    """It comes back as a stranger, and what it was is nobody's ghost."""
    host = others(cluster, cluster.master(), loaded.host)[0]
    old = host.node_id
    host.kill()
    shutil.rmtree(host.home)
    cluster.start(host.number)
    assert host.node_id != old
    loaded.check(cluster, RETRIES)
    check_whole(cluster, loaded.instance)


def test_without_multicast_one_address_is_enough(cluster: Cluster, loaded: Loaded) -> None:
    """All but one know where that one is, and it tells them of each other."""
    for host in cluster.hosts:
        host.stop()
    cluster.lan.block_multicast()
    hub, *rest = cluster.lan.hosts
    cluster.start(hub.number)
    cluster.start(*(host.number for host in rest), flags=[f"--peer=/ip4/{hub.ip}/tcp/52416"])
    cluster.ready(loaded.instance)
    check_whole(cluster, loaded.instance)
    for host in cluster.hosts:
        assert host.daemon.get("/network")["seen"] == []
        linked = {link["peer_id"] for link in host.daemon.get("/network")["links"]}
        assert linked == {other.node_id for other in others(cluster, host)}
        answers(host, loaded.model, RETRIES)
    cluster.lan.heal()
