"""`exo node`: what a person, a program and a script get, side by side."""

import pytest

from .conftest import Exo
from .fake_api import NODE_ID, OTHER_ID, FakeApi, instance, link, node


@pytest.fixture
def two(api: FakeApi) -> FakeApi:
    """Two nodes, linked, with an instance on the first."""
    api.nodes.append(node(OTHER_ID, "mac", device=None, memory=None))
    api.links = [link(NODE_ID, OTHER_ID, 0.00031, 1.18e8), link(OTHER_ID, NODE_ID, 0.0004)]
    api.instances["i1"] = instance("i1")
    return api


def test_list(exo: Exo, two: FakeApi) -> None:
    assert exo("node", "list").out == (
        "NAME  ID        ROLE    STATUS  API              VERSION  MEMORY                "
        "FLOP/S                 LATENCY  SINCE\n"
        "box   FakeNode  master  online  127.0.0.1:52415  0.1.0    12.0 GiB of 16.0 GiB  "
        "150 GFLOP/s (float32)  -        2026-11-23 10:00:00 UTC\n"
        "mac   therNode  node    online  127.0.0.1:52415  0.1.0    -                     "
        "-                      0.31 ms  2026-11-23 10:00:00 UTC\n"
    )
    assert exo("node", "list", "--json").json() == {"object": "list", "data": two.nodes}
    assert exo("node", "list", "--quiet").out == f"{NODE_ID}\n{OTHER_ID}\n"


def test_long_ids(exo: Exo, two: FakeApi) -> None:
    assert f"box   {NODE_ID}   master" in exo("node", "list", "--long").out


def test_short_ids_are_as_long_as_it_takes(exo: Exo, two: FakeApi) -> None:
    two.nodes[1]["node_id"] = "12D3KooWZFakeNode"

    out = exo("node", "list").out

    assert "WFakeNode  master" in out
    assert "ZFakeNode  node" in out


def test_show(exo: Exo, two: FakeApi) -> None:
    shown = exo("node", "show", "box")

    assert shown.out == (
        "Node       box\n"
        f"Node id    {NODE_ID}\n"
        "Role       master\n"
        "Status     online since 2026-11-23 10:00:00 UTC\n"
        "Version    0.1.0\n"
        "API        127.0.0.1:52415\n"
        "Addresses  /ip4/10.0.0.2/tcp/52416\n"
        "Started    2026-11-23 10:00:00 UTC\n"
        "Device     Test CPU, 8 cores (cpu)\n"
        "Memory     12.0 GiB of 16.0 GiB\n"
        "FLOP/s     150 GFLOP/s (float32)\n"
        "Bandwidth  40 GB/s\n"
        "\n"
        "LINK TO  LATENCY  BANDWIDTH\n"
        "mac      0.31 ms  118 MB/s\n"
        "\n"
        "MODEL     STATUS  LAYERS  MEMORY   INSTANCE\n"
        "exo-demo  ready   0-5     5.0 MiB  i1\n"
    )
    assert exo("node", "show", "box", "--json").json() == two.nodes[0]


def test_show_a_node_with_nothing(exo: Exo, two: FakeApi) -> None:
    two.links = []

    out = exo("node", "show", "mac").out

    assert "Device     being measured\n" in out
    assert out.endswith("Bandwidth  -\n\nNo instances lie on it.\n")


@pytest.mark.parametrize("name", ["mac", OTHER_ID, "therNode"])
def test_a_node_has_three_names(exo: Exo, two: FakeApi, name: str) -> None:
    assert exo("node", "show", name, "--json").json()["node_id"] == OTHER_ID


@pytest.mark.parametrize(
    ("name", "message"),
    [("pc", "There is no node 'pc'."), ("Node", "2 nodes are called 'Node'."), ("", "no node ''")],
)
def test_a_name_that_no_node_has(exo: Exo, two: FakeApi, name: str, message: str) -> None:
    result = exo("node", "show", name)

    assert result.code == 1
    assert message in result.err
    assert "`exo node list` shows them." in result.err


def test_drain_and_back(exo: Exo, two: FakeApi) -> None:
    assert exo("node", "drain", "mac").out == (
        "mac gets no new instances. `exo node drain mac --undo` takes that back.\n"
    )
    assert two.nodes[1]["status"] == "draining"
    assert exo("node", "drain", "mac", "--undo").out == "mac may get new instances.\n"
    assert two.nodes[1]["status"] == "online"
    assert exo("node", "drain", OTHER_ID, "--json").json() == two.nodes[1]
    assert exo("node", "drain", OTHER_ID, "-q").out == f"{OTHER_ID}\n"


def test_an_empty_name_drains_nothing(exo: Exo, two: FakeApi) -> None:
    result = exo("node", "drain", "")

    assert (result.code, two.calls) == (1, [])
    assert "The node's name is empty." in result.err


def test_a_node_leaves(exo: Exo, two: FakeApi) -> None:
    result = exo("node", "leave", "mac")

    assert (result.out, result.err) == (
        "mac finishes its answers, leaves the cluster and stops.\n",
        "",
    )
    assert two.nodes[1]["status"] == "lost"
    assert exo("node", "leave", "mac", "--json").json() == two.nodes[1]
    assert exo("node", "leave", "mac", "--quiet").out == f"{OTHER_ID}\n"


def test_this_node_leaves(exo: Exo, two: FakeApi) -> None:
    assert exo("node", "leave").out == "box finishes its answers, leaves the cluster and stops.\n"
    assert ("POST", f"/nodes/{NODE_ID}/leave") in two.calls


def test_a_person_is_asked_first(exo: Exo, two: FakeApi) -> None:
    no = exo("node", "leave", "box", stdin="n\n", tty=True)

    assert (no.code, no.out) == (1, "")
    assert no.err == (
        "1 instance on it will fail. Take box out of the cluster and stop its daemon? [y/N] "
        "Nothing was done.\n"
    )
    assert two.nodes[0]["status"] == "online"
    assert exo("node", "leave", "box", tty=True).code == 1, "the end of input is no yes"

    assert exo("node", "leave", "mac", stdin="y\n", tty=True).code == 0
    assert exo("node", "leave", "box", "--yes", tty=True).err == ""
