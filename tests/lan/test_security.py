"""Who is let into a cluster, and who is not.

Hosts 0 to 2 are a locked cluster, which every test leaves as it found it; host 3 is a stranger.
"""

import json
import shutil
from collections.abc import Iterator

import pytest

from tests.e2e.daemon import Json, run_exo

from .cluster import Cluster, eventually, online
from .conftest import MakeLan
from .host import Host
from .lan import Lan

pytestmark = pytest.mark.e2e

MEMBERS = (0, 1, 2)
# What the daemons are right to warn of here.
EXPECTED = ("No link with", "Another node uses this node's id", "is on this node only so far")


@pytest.fixture(scope="module")
def lan(make_shared_lan: MakeLan) -> Lan:
    return make_shared_lan(4)


@pytest.fixture(scope="module")
def cluster(lan: Lan) -> Iterator[Cluster]:
    """Three hosts, locked while they run."""
    made = Cluster(lan)
    made.start(*MEMBERS)
    term = made.agree()
    told = said(lan.hosts[1], "cluster", "lock")
    assert told["missed"] == []
    assert made.agree() == term, "nobody has lost a link"
    for host in made.hosts:
        assert host.state()["cluster"]["locked"]
    yield made
    made.check_logs(EXPECTED)


@pytest.fixture
def token(cluster: Cluster) -> str:
    return said(cluster.hosts[0], "cluster", "token")["token"]


@pytest.fixture
def stranger(cluster: Cluster) -> Iterator[Host]:
    """A new host, gone after the test."""
    host = cluster.lan.hosts[3]
    yield host
    if host.runs:
        host.stop()
    cluster.check_logs(EXPECTED)
    shutil.rmtree(host.home)
    cluster.settings[3].pop("cluster_name", None)
    assert len(cluster.hosts) == len(MEMBERS)
    cluster.agree()


def said(host: Host, *words: str) -> Json:
    """What an `exo` command says on that host."""
    with host.inside():
        done = run_exo(host.home, *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refused(*hosts: Host) -> Json:
    """How many links these hosts have refused, by reason."""
    total: Json = {}
    for host in hosts:
        for reason, count in host.state()["cluster"]["refused"].items():
            total[reason] = total.get(reason, 0) + count
    return total


def check_alone(host: Host) -> None:
    assert online(host.state()) == {host.node_id}
    assert host.daemon.get("/node_id") == {"node_id": host.node_id}
    assert host.daemon.get("/network")["links"] == []


def test_a_stranger_is_refused_and_counted(cluster: Cluster, stranger: Host) -> None:
    members = cluster.hosts
    cluster.start(stranger.number)
    eventually(lambda: "peer_open" in refused(*members))
    eventually(lambda: "peer_locked" in refused(stranger))
    check_alone(stranger)
    assert "exo start --join TOKEN" in stranger.daemon.log
    cluster.agree(*members)


def test_who_has_the_token_is_let_in(cluster: Cluster, stranger: Host, token: str) -> None:
    """It needs nothing else, not even multicast; and the next time it needs nothing at all."""
    cluster.lan.block_multicast(stranger.number)
    cluster.start(stranger.number, flags=["--join", token])
    cluster.agree()
    assert stranger.state()["cluster"]["locked"]
    stranger.stop()
    cluster.start(stranger.number)
    cluster.agree()
    cluster.lan.heal()


def test_a_new_secret_leaves_out_who_was_not_there(cluster: Cluster, token: str) -> None:
    absent = cluster.lan.hosts[2]
    absent.stop()
    rest = cluster.hosts
    term = cluster.agree()
    new = said(rest[0], "cluster", "rotate")["token"]
    assert new != token
    assert cluster.agree() == term, "nobody has lost a link"
    cluster.start(absent.number)
    eventually(lambda: "wrong_secret" in refused(*rest))
    check_alone(absent)
    assert "has another secret" in absent.daemon.log
    absent.stop()
    cluster.start(absent.number, flags=["--join", token])
    check_alone(absent)
    absent.stop()
    cluster.start(absent.number, flags=["--join", new])
    cluster.agree()


def test_clusters_of_other_names_leave_each_other_alone(cluster: Cluster, stranger: Host) -> None:
    members = cluster.hosts
    cluster.settings[3]["cluster_name"] = "other"
    before = refused(*members)
    cluster.start(stranger.number)
    eventually(
        lambda: (
            {host.node_id for host in members}
            <= {seen["peer_id"] for seen in stranger.daemon.get("/network")["seen"]}
        )
    )
    check_alone(stranger)
    cluster.agree(*members)
    assert refused(*members) == before, "nobody has tried"
    stranger.stop()
    # Nor do they link when one is told where the other is.
    cluster.start(stranger.number, flags=[f"--peer=/ip4/{members[0].ip}/tcp/52416"])
    eventually(lambda: "other_cluster" in refused(members[0]))
    check_alone(stranger)
    cluster.agree(*members)


def test_a_copied_data_folder_does_no_harm(cluster: Cluster, stranger: Host) -> None:
    """To the lab's hosts their machine is the same one, so the copy has the id of the original."""
    members = cluster.hosts
    term = cluster.agree()
    original = members[1]
    shutil.copytree(original.home / "data", stranger.home / "data")
    cluster.start(stranger.number)
    assert stranger.node_id == original.node_id
    eventually(lambda: "remove identity.key" in stranger.daemon.log)
    eventually(lambda: "remove identity.key" in original.daemon.log)
    check_alone(stranger)
    assert cluster.agree(*members) == term
