"""`exo topology`: readable with one node and with many."""

from itertools import permutations
from typing import Any

import pytest

from exo.cli import topology

from .conftest import Exo
from .fake_api import DEVICE, NODE_ID, FakeApi, instance, link, node


def make_nodes(count: int) -> list[dict[str, Any]]:
    names = [f"n{number}" for number in range(1, count + 1)]
    return [
        node(f"12D3KooWNumber{at:04}", name, role="node" if at else "master")
        for at, name in enumerate(names)
    ]


def make_links(nodes: list[dict[str, Any]], bandwidth: float | None = 1e8) -> list[dict[str, Any]]:
    """Each pair both ways; the later the node, the slower."""
    ids = [node["node_id"] for node in nodes]
    return [
        link(one, other, (ids.index(one) + ids.index(other)) / 1e4, bandwidth)
        for one, other in permutations(ids, 2)
    ]


def use(api: FakeApi, count: int, bandwidth: float | None = 1e8) -> None:
    api.nodes = make_nodes(count)
    api.links = make_links(api.nodes, bandwidth)


def sections(exo: Exo) -> list[str]:
    return exo("topology").out.removesuffix("\n").split("\n\n")


def test_one_node(exo: Exo, api: FakeApi) -> None:
    api.instances["i1"] = instance("i1")

    assert exo("topology").out == (
        "NAME  ID        ROLE    STATUS  API              VERSION  MEMORY                "
        "FLOP/S                 LATENCY  SINCE\n"
        "box   FakeNode  master  online  127.0.0.1:52415  0.1.0    12.0 GiB of 16.0 GiB  "
        "150 GFLOP/s (float32)  -        2026-11-23 10:00:00 UTC\n"
        "\n"
        "MODEL     STATUS  NODES AND LAYERS  ID\n"
        "exo-demo  ready   box 0-5           i1\n"
    )


def test_json(exo: Exo, api: FakeApi) -> None:
    use(api, 2)
    api.instances["i1"] = instance("i1")

    assert exo("topology", "--json").json() == {
        "nodes": api.nodes,
        "links": api.links,
        "instances": api.instances,
    }


def test_two_nodes(exo: Exo, api: FakeApi) -> None:
    use(api, 2)

    nodes, links, instances = sections(exo)

    assert nodes.count("\n") == 2
    assert links == "n1 ── 0.1 ms, 100 MB/s ── n2"
    assert instances == "There are no instances."


def test_a_link_is_as_slow_as_its_slower_direction(exo: Exo, api: FakeApi) -> None:
    use(api, 2)
    one, other = (node["node_id"] for node in api.nodes)
    api.links = [link(one, other, 0.001, 2e8), link(other, one, 0.002, 1e8)]
    assert sections(exo)[1] == "n1 ── 2 ms, 100 MB/s ── n2"

    api.links = [link(one, other, 0.001, None), link(other, one, 0.001, 1e8)]
    assert sections(exo)[1] == "n1 ── 1 ms, 100 MB/s ── n2"

    api.links = [link(other, one, 0.001)]
    assert sections(exo)[1] == "n1 ── 1 ms ── n2"


def test_four_nodes_have_six_lines(exo: Exo, api: FakeApi) -> None:
    use(api, 4)
    api.nodes[0]["name"] = "studio"

    assert sections(exo)[1] == (
        "studio ── 0.1 ms, 100 MB/s ── n2\n"
        "studio ── 0.2 ms, 100 MB/s ── n3\n"
        "studio ── 0.3 ms, 100 MB/s ── n4\n"
        "n2     ── 0.3 ms, 100 MB/s ── n3\n"
        "n2     ── 0.4 ms, 100 MB/s ── n4\n"
        "n3     ── 0.5 ms, 100 MB/s ── n4"
    )


def test_five_nodes_have_tables(exo: Exo, api: FakeApi) -> None:
    use(api, 5, bandwidth=None)
    api.links = api.links[:-1]

    _, latency, _ = sections(exo)

    assert latency == (
        "Latency, ms    1    2    3    4\n"
        " 1 n1\n"
        " 2 n2        0.1\n"
        " 3 n3        0.2  0.3\n"
        " 4 n4        0.3  0.4  0.5\n"
        " 5 n5        0.4  0.5  0.6  0.7"
    )


def test_a_link_that_is_not_there(exo: Exo, api: FakeApi) -> None:
    use(api, 5)
    api.links = [link for link in api.links if "12D3KooWNumber0004" not in link.values()]

    latency, bandwidth = sections(exo)[1:3]

    assert latency.splitlines()[-1] == " 5 n5          -    -    -    -"
    assert bandwidth.splitlines()[2] == " 2 n2            100"


def test_twelve_nodes_fit_the_usual_width(exo: Exo, api: FakeApi) -> None:
    use(api, 12)

    _, latency, bandwidth, _ = sections(exo)

    assert len(latency.splitlines()) == len(bandwidth.splitlines()) == 13
    assert max(map(len, f"{latency}\n{bandwidth}".splitlines())) <= 80


def test_more_nodes_show_the_slowest_links(exo: Exo, api: FakeApi) -> None:
    use(api, 14)

    lines = sections(exo)[1].splitlines()

    assert lines[:2] == ["The 12 slowest of 91 links:", "n13 ── 2.5 ms, 100 MB/s ── n14"]
    assert len(lines) == 13


def test_nodes_of_one_name_are_told_apart(exo: Exo, api: FakeApi) -> None:
    use(api, 2)
    api.nodes[1]["name"] = "n1"

    assert sections(exo)[1] == "n1 mber0000 ── 0.1 ms, 100 MB/s ── n1 mber0001"


@pytest.mark.parametrize("count", [1, 2, 4, 12])
def test_a_terminal_gets_boxes(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR")
    nodes = make_nodes(count)
    placed = instance("i1")
    placed["shards"][0]["node_id"] = nodes[0]["node_id"]
    state = {"topology": {"nodes": nodes, "links": []}, "instances": {"i1": placed}}

    boxes, *_ = topology.sections(state)

    assert boxes.count("╭") == count
    assert "─ n1 (master) ─" in boxes
    assert "exo-demo 0-5, ready" in boxes
    assert max(map(len, boxes.splitlines())) <= 80 + 9 * 3, "with the codes of their styles"


def test_what_others_wrote_does_not_style_a_box(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR")
    nodes = [node(NODE_ID, "[bold]\x1b[2Jbox", status="?", device={**DEVICE, "name": "\x1b]0;x"})]

    boxes, *_ = topology.sections({"topology": {"nodes": nodes, "links": []}, "instances": {}})

    assert "[bold][2Jbox" in boxes
    assert "\x1b[2J" not in boxes
    assert "\x1b]0" not in boxes
