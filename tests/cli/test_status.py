"""`exo status`, `exo model` and `exo events`: what a person reads beside what a program reads."""

import json

from exo.config import Paths

from .conftest import Exo, record
from .fake_api import MODEL, NODE_ID, OPEN, OTHER_ID, FakeApi, instance, node


def test_status(exo: Exo, api: FakeApi) -> None:
    api.instances["i1"] = instance("i1", "loading", 3)

    assert exo("status").out == (
        f"API      {api.url}\n"
        "Node     box (master)\n"
        f"Node id  {NODE_ID}\n"
        "Device   Test CPU, 8 cores (cpu)\n"
        "Memory   12.0 GiB of 16.0 GiB available\n"
        "FLOP/s   150 GFLOP/s (float32)\n"
        "Cluster  exo, 1 node, open\n"
        "\n"
        "MODEL     STATUS       CONTEXT  NODES  MEMORY   ID\n"
        "exo-demo  loading 3/6  4096     1      5.0 MiB  i1\n"
    )
    assert exo("status", "--json").json() == api.status(4242)


def test_status_while_the_device_is_measured(exo: Exo, api: FakeApi) -> None:
    api.nodes[0]["device"] = None
    api.locked = True

    out = exo("status").out

    assert "Device   being measured\n" in out
    assert "FLOP/s   -\n" in out
    assert "Cluster  exo, 1 node, locked\n\nThere are no instances.\n" in out


def test_status_of_several_nodes(exo: Exo, api: FakeApi) -> None:
    api.nodes.append(node(OTHER_ID, "mac", status="suspect", device=None, memory=None))

    assert (
        "Cluster  exo, 2 nodes, open\n"
        "\n"
        "NODE  ROLE    STATUS   DEVICE                   AVAILABLE  FLOP/S                 ID\n"
        "box   master  online   Test CPU, 8 cores (cpu)  12.0 GiB   150 GFLOP/s (float32)  "
        "FakeNode\n"
        "mac   node    suspect  being measured           -          -                      "
        "therNode\n"
    ) in exo("status").out


def test_status_says_how_to_close_an_open_cluster(exo: Exo, api: FakeApi) -> None:
    api.open_to_network = True

    assert exo("status").out.endswith(f"There are no instances.\n\n{OPEN}\n")
    assert exo("status", "--json").json()["cluster"]["warning"] == OPEN


def test_status_of_a_node_that_drains(exo: Exo, api: FakeApi) -> None:
    api.nodes[0]["status"] = "draining"

    assert "Node     box (master, draining)\n" in exo("status").out


def test_status_of_another_machine_knows_no_pid(exo: Exo, paths: Paths, api: FakeApi) -> None:
    record(paths, "http://127.0.0.1:1")

    state = exo("--api", api.url, "status", "--json").json()

    assert (state["node_id"], state["pid"], state["api"]) == (NODE_ID, None, api.url)


def test_model_list(exo: Exo, api: FakeApi) -> None:
    assert exo("model", "list").out == (
        "MODEL     FOR   SIZE     QUANTIZATION  LAYERS  CONTEXT  HERE  ALSO CALLED\n"
        "exo-demo  text  3.0 MiB  4bit          6       4096     yes   demo\n"
    )
    assert exo("model", "list", "--json").json() == {"object": "list", "data": [MODEL]}


def test_no_models(exo: Exo, api: FakeApi) -> None:
    api.models = []

    assert exo("model", "list").out == "exo knows no models.\n"


def event(index: int, **more: object) -> dict[str, object]:
    head = {"index": index, "term": {"number": 1}, "time": "2026-11-23T10:00:00Z"}
    return {**head, "type": "InstanceCreated", **more}


def test_events(exo: Exo, api: FakeApi) -> None:
    api.events = [event(1), event(2, instance_id="i1", shards=[1, 2], text="x" * 100)]

    assert exo("events").out == (
        "     1  2026-11-23T10:00:00Z  InstanceCreated\n"
        "     2  2026-11-23T10:00:00Z  InstanceCreated  instance_id=i1  shards=[1, 2]  "
        f"text={'x' * 79}…\n"
    )
    assert exo("events", "--json").json() == api.events


def test_events_can_be_bounded(exo: Exo, api: FakeApi) -> None:
    api.events = [event(1), event(2), event(3)]

    assert exo("events", "--since", "2", "--limit", "1", "--json").json() == [event(2)]
    assert exo("events", "--since", "9").out == "There are no events.\n"


def test_followed_events_are_lines(exo: Exo, api: FakeApi) -> None:
    api.events = [event(1), event(2), event(3)]

    result = exo("events", "--follow", "--since", "2", "--limit", "2", "--json")

    assert [json.loads(line) for line in result.out.splitlines()] == [event(2), event(3)]


def test_follow_ends_with_the_daemon(exo: Exo, api: FakeApi) -> None:
    api.events, api.stays_open = [event(1)], False

    result = exo("events", "-f")

    assert (result.code, result.out.count("\n")) == (0, 1)
