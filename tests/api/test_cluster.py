"""What the API says of the cluster, its nodes and its network."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from exo.api import cluster
from exo.api.views import OPEN_WARNING
from exo.p2p.core import Status
from exo.p2p.measure import LinkMeasure
from tests.cluster.factory import device, link, node

from .conftest import Served
from .stub import MEMORY, make_state, member, peer_link


async def node_of(served: Served, node_id: str) -> dict[str, Any]:
    nodes = (await served.get("/state"))["topology"]["nodes"]
    return next(node for node in nodes if node["node_id"] == node_id)


async def test_a_node_of_the_topology(served: Served):
    info = node("b", "box", links=("/ip4/10.0.0.2/tcp/1",), device=device())
    served.node.state = make_state(nodes={"a": node(), "b": info})
    served.node.network.members = {"b": member("b")}
    served.node.network.measures = {"b": LinkMeasure("b", 0.25, 1e9)}
    served.node.memory["b"] = MEMORY

    found = await node_of(served, "b")

    age = datetime.now(UTC) - datetime.fromisoformat(found.pop("since"))
    assert 0 <= age.total_seconds() < 60
    assert found.pop("device")["flops"] == {"float32": 1e11}
    assert found == {
        "node_id": "b",
        "name": "box",
        "role": "node",
        "status": "online",
        "version": "0",
        "address": "h:1",
        "links": list(member("b").addresses),
        "started_at": "now",
        "memory": {"total": 100, "available": 40},
        "latency": 0.25,
    }


async def test_what_is_not_known_is_null(served: Served):
    found = await node_of(served, "b")

    assert [found[name] for name in ("since", "device", "memory", "latency")] == [None] * 4
    assert (await node_of(served, "a"))["role"] == "master"


@pytest.mark.parametrize(
    ("fields", "seen", "status"),
    [
        ({}, Status.ALIVE, "online"),
        ({}, None, "online"),
        ({}, Status.SUSPECT, "suspect"),
        ({}, Status.DEAD, "lost"),
        ({}, Status.LEFT, "lost"),
        ({"online": False}, Status.ALIVE, "lost"),
        ({"online": False}, None, "lost"),
        ({"draining": True}, Status.ALIVE, "draining"),
        ({"draining": True}, Status.SUSPECT, "suspect"),
        ({"draining": True, "online": False}, None, "lost"),
    ],
)
async def test_the_status_is_the_worse_of_two_views(
    served: Served, fields: dict[str, bool], seen: Status | None, status: str
):
    served.node.state = make_state(nodes={"b": node("b", "b", **fields)})
    served.node.network.members = {} if seen is None else {"b": member("b", seen)}

    assert (await node_of(served, "b"))["status"] == status


async def test_links_have_a_direction(served: Served):
    measured = link("a", "b", 0.001).model_copy(update={"bandwidth": 1e8})
    served.node.state = make_state(links={"a/b": measured, "b/a": link("b", "a", 0.002)})

    topology = (await served.get("/state"))["topology"]

    assert topology["links"] == [
        {"from": "a", "to": "b", "latency": 0.001, "bandwidth": 1e8},
        {"from": "b", "to": "a", "latency": 0.002, "bandwidth": None},
    ]


async def test_the_clusters_summary(served: Served):
    nodes = {"a": node(), "b": node("b", "b", online=False)}
    served.node.state = make_state(nodes=nodes)
    served.node.network.refused = {"version": 3}

    assert (await served.get("/state"))["cluster"] == {
        "name": "exo",
        "locked": False,
        "nodes": 1,
        "refused": {"version": 3},
        "warning": None,
    }


@pytest.mark.parametrize(
    ("listening", "locked", "warned"),
    [
        (("/ip4/127.0.0.1/tcp/1/p2p/a", "/ip6/::1/tcp/1"), False, False),
        (("/ip4/127.0.0.1/tcp/1", "/ip4/10.0.0.2/tcp/1/p2p/a"), False, True),
        (("/ip6/fd00::1/tcp/1",), False, True),
        (("/ip4/10.0.0.2/tcp/1",), True, False),
    ],
)
async def test_an_open_cluster_is_warned_of(
    served: Served, listening: tuple[str, ...], locked: bool, warned: bool
):
    served.node.network.listening = listening
    served.security.locked = locked

    warning = (await served.get("/cluster"))["warning"]

    assert warning == (OPEN_WARNING if warned else None)


async def test_the_members(served: Served):
    served.node.network.members = {"b": member("b", Status.SUSPECT, ago=60)}

    found = await served.get("/cluster")

    [one] = found.pop("members")
    age = datetime.now(UTC) - datetime.fromisoformat(one.pop("since"))
    assert 59 <= age.total_seconds() < 120
    assert one == {
        "peer_id": "b",
        "name": "b",
        "status": "suspect",
        "version": "0.1.0",
        "addresses": ["/ip4/10.0.0.2/tcp/52416"],
        "incarnation": 2,
    }
    assert found == {
        "name": "exo",
        "locked": False,
        "nodes": 2,
        "refused": {},
        "warning": None,
        "node_id": "a",
        "master_id": "a",
        "term": {"number": 1, "master_id": "a"},
    }


async def test_this_node_is_what_it_is_since_its_start(served: Served):
    served.node.network.members = {"a": member("a")}

    [one] = (await served.get("/cluster"))["members"]

    assert one["since"] == (await node_of(served, "a"))["since"] == "now"


async def test_without_a_master(served: Served):
    served.node.network.term = None

    found = await served.get("/cluster")

    assert (found["master_id"], found["term"]) == (None, None)


async def test_the_network(served: Served, monkeypatch: pytest.MonkeyPatch):
    network = served.node.network
    interfaces = (SimpleNamespace(name="en0", addresses=("10.0.0.1",)),)
    monkeypatch.setattr(cluster, "usable_interfaces", lambda: interfaces)
    network.discovery = SimpleNamespace(enabled=True, working=False, problem="en0: no route")
    network.seen = (member("c", cluster="lab"),)
    network.up = [peer_link("b"), peer_link("c", outgoing=False)]
    network.measures = {"b": LinkMeasure("b", 0.001, None)}
    network.refused = {"self": 1}

    addresses = ["/ip4/10.0.0.2/tcp/52416"]
    common = {"address": "/ip4/10.0.0.2/tcp/1", "bandwidth": None}
    assert await served.get("/network") == {
        "listening": ["/ip4/127.0.0.1/tcp/52416"],
        "interfaces": [{"name": "en0", "addresses": ["10.0.0.1"]}],
        "discovery": {"enabled": True, "working": False, "problem": "en0: no route"},
        "seen": [{"peer_id": "c", "cluster": "lab", "version": "0.1.0", "addresses": addresses}],
        "links": [
            {"peer_id": "b", "name": "b", "outgoing": True, "latency": 0.001, **common},
            {"peer_id": "c", "name": "c", "outgoing": False, "latency": None, **common},
        ],
        "refused": {"self": 1},
    }
