"""`exo instance`: create with its progress, and what is done with ids."""

from pathlib import Path
from typing import Any

import pytest

from .conftest import Exo
from .fake_api import NODE_ID, OTHER_ID, FakeApi, instance, loading, node

DETAILS = (
    "Instance     new-instance\n"
    "Model        exo-demo\n"
    "Status       ready\n"
    "Sharding     pipeline\n"
    "Links        local\n"
    "Context      4096 tokens\n"
    "Concurrency  4\n"
    "Created      2026-11-23T10:00:00Z\n"
    "\n"
    "RANK  NODE  LAYERS  MEMORY   RUNNER   PID  RESTARTS\n"
    "0     box   0-5     5.0 MiB  loading  42   0\n"
)


def test_create_follows_the_events_until_ready(exo: Exo, api: FakeApi) -> None:
    result = exo("instance", "create", "exo-demo")

    assert (result.code, result.out) == (0, DETAILS)
    assert result.err.splitlines() == [
        "exo-demo: loading",
        "exo-demo: warming",
        "exo-demo: ready",
    ]
    assert api.posted == [{"instance": {"model_id": "exo-demo"}}]


def test_create_fetches_once_per_event(exo: Exo, api: FakeApi) -> None:
    exo("instance", "create", "exo-demo")

    assert api.calls == [
        ("POST", "/instance"),
        ("GET", "/state"),
        ("GET", "/instance/new-instance"),
        ("GET", "/events?follow=true&since=7"),
        *[("GET", "/instance/new-instance")] * len(api.steps),
        ("GET", "/state"),
    ]


def test_create_prints_the_instance_as_json(exo: Exo, api: FakeApi) -> None:
    made = exo("instance", "create", "exo-demo", "--json").json()

    assert made == api.instances["new-instance"]
    assert (made["instance_id"], made["status"]) == ("new-instance", "ready")


def test_create_sends_what_is_asked(exo: Exo, api: FakeApi) -> None:
    words = ["--min-nodes", "2", "--sharding", "tensor", "--context", "512", "--concurrency", "3"]
    words += ["--max-nodes", "4", "--nodes", "a,b", "--layers", "a=0-9,b=10-15"]
    words += ["--objective", "throughput", "--meta", "mlx_ring"]

    exo("instance", "create", "exo-demo", *words)

    assert api.posted == [
        {
            "instance": {
                "model_id": "exo-demo",
                "min_nodes": 2,
                "max_nodes": 4,
                "nodes": "a,b",
                "layers": "a=0-9,b=10-15",
                "objective": "throughput",
                "sharding": "tensor",
                "instance_meta": "mlx_ring",
                "context_length": 512,
                "concurrency": 3,
            }
        }
    ]


def test_create_takes_a_folder(exo: Exo, api: FakeApi, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()

    exo("instance", "create", "./mine", "--no-wait")

    assert api.posted == [{"instance": {"model_id": str(tmp_path / "mine")}}]


def test_create_need_not_wait(exo: Exo, api: FakeApi) -> None:
    result = exo("instance", "create", "exo-demo", "--no-wait")

    assert (result.code, result.err) == (0, "")
    assert "Status       loading 0/6\n" in result.out


def test_a_failed_instance_is_exit_1_with_the_reason(exo: Exo, api: FakeApi) -> None:
    api.steps = [loading(2), {"status": "failed", "reason": "The runner ran out of memory."}]

    result = exo("instance", "create", "exo-demo")

    assert (result.code, result.out) == (1, "")
    assert result.err == (
        "exo-demo: loading\n"
        "Error: Instance new-instance of exo-demo failed: The runner ran out of memory.\n"
        "`exo logs` shows what it did last.\n"
    )


def test_a_failed_instance_is_json_too(exo: Exo, api: FakeApi) -> None:
    api.steps = [{"status": "failed", "reason": None}]

    result = exo("instance", "create", "exo-demo", "--json")

    assert (result.code, result.json()["status"]) == (1, "failed")
    assert "no reason was given" in result.err


def test_a_daemon_that_stops_ends_the_wait(exo: Exo, api: FakeApi) -> None:
    api.steps, api.stays_open = [loading(2)], False

    result = exo("instance", "create", "exo-demo")

    assert result.code == 6
    assert "Error: exo stopped before the instance was ready.\n" in result.err


def test_ctrl_c_says_that_loading_goes_on(
    exo: Exo, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("exo.cli.instance.wait", interrupted)

    result = exo("instance", "create", "exo-demo")

    assert result.code == 130
    assert "`exo instance delete new-instance` ends it" in result.err


def test_list(exo: Exo, api: FakeApi) -> None:
    assert exo("instance", "list").out == "There are no instances.\n"

    api.instances["i1"] = instance("i1")

    assert exo("instance", "list").out == (
        "MODEL     STATUS  CONTEXT  NODES  MEMORY   ID\n"
        "exo-demo  ready   4096     1      5.0 MiB  i1\n"
    )
    assert exo("instance", "list", "--json").json() == {
        "object": "list",
        "data": [instance("i1")],
    }


def test_show_takes_the_beginning_of_an_id(exo: Exo, api: FakeApi) -> None:
    api.instances = {"abc": instance("abc"), "abd": instance("abd"), "ab": instance("ab")}

    assert exo("instance", "show", "abc", "--json").json() == instance("abc")
    assert exo("instance", "show", "abd").out.startswith("Instance     abd\n")
    assert exo("instance", "show", "ab", "--json").json() == instance("ab")


def test_show_tells_what_is_wrong(exo: Exo, api: FakeApi) -> None:
    broken = instance("i1", "failed")
    broken["reason"] = "It broke."
    broken["shards"][0]["runner"] |= {"error": "segfault", "restarts": 3}
    api.instances["i1"] = broken

    out = exo("instance", "show", "i1").out

    assert "Reason       It broke.\n" in out
    assert "failed (segfault)  42   3\n" in out


def test_show_has_a_line_for_every_shard_with_the_name_of_its_node(exo: Exo, api: FakeApi) -> None:
    split = instance("i1")
    [first] = split["shards"]
    second = {**first, "rank": 1, "node_id": OTHER_ID, "start_layer": 4, "runner": None}
    lost = {**first, "rank": 2, "node_id": "12D3KooWGone", "start_layer": 5, "runner": None}
    split["shards"] = [{**first, "end_layer": 4}, {**second, "end_layer": 5}, lost]
    api.instances["i1"] = split
    api.nodes.append(node(OTHER_ID, "mac"))

    assert exo("instance", "show", "i1").out.endswith(
        "RANK  NODE          LAYERS  MEMORY   RUNNER  PID  RESTARTS\n"
        "0     box           0-3     5.0 MiB  ready   42   0\n"
        "1     mac           4-4     5.0 MiB  -       -    -\n"
        "2     12D3KooWGone  5-5     5.0 MiB  -       -    -\n"
    )


@pytest.mark.parametrize("command", ["show", "delete"])
@pytest.mark.parametrize(
    ("beginning", "message"),
    [
        ("x", "Error: No instance has an id that begins with 'x'.\n`exo instance list` shows"),
        ("ab", "Error: 2 instances have an id that begins with 'ab'.\nGive more of it: abc, abd."),
        ("", "Error: The instance id is empty.\n"),
    ],
)
def test_an_id_must_mean_one_instance(
    exo: Exo, api: FakeApi, command: str, beginning: str, message: str
) -> None:
    api.instances = {"abc": instance("abc"), "abd": instance("abd")}

    result = exo("instance", command, beginning)

    assert result.code == 1
    assert result.err.startswith(message)
    assert set(api.instances) == {"abc", "abd"}


def test_delete(exo: Exo, api: FakeApi) -> None:
    api.instances = {"abc": instance("abc"), "xyz": instance("xyz")}

    assert exo("instance", "delete", "a").out == "Instance abc is deleted.\n"
    assert exo("instance", "delete", "x", "--json").json()["instance_id"] == "xyz"
    assert api.instances == {}


def preview(count: int, shards: list[tuple[str, int, int]], **fields: Any) -> dict[str, Any]:
    """A row of `/instance/previews`; each shard has 1 GiB."""
    placed = [
        {"node_id": node_id, "start_layer": start, "end_layer": end, "memory": 1024**3}
        for node_id, start, end in shards
    ]
    placement = {"shards": placed, "prefill_tps": 1000.0, "decode_tps": None}
    return {
        "model_id": "exo-demo",
        "instance_meta": "tcp" if count > 1 else "local",
        "memory_delta_by_node": None,
        "sharding": "pipeline",
        "min_nodes": count,
        "instance": placement if shards else None,
        "error": None if shards else "It is too large.",
        **fields,
    }


def test_preview(exo: Exo, api: FakeApi) -> None:
    api.nodes.append(node(OTHER_ID, "mac"))
    api.previews = [
        preview(1, []),
        preview(2, [(OTHER_ID, 0, 4), (NODE_ID, 4, 6)]),
        preview(2, [], sharding="tensor", instance_meta="mlx_ring", error="Not yet."),
    ]

    assert exo("instance", "preview", "exo-demo").out == (
        "NODES  SHARDING  META      LAYERS AND MEMORY                     PREFILL       DECODE  "
        "PROBLEM\n"
        "1      pipeline  local     -                                     -             -       "
        "It is too large.\n"
        "2      pipeline  tcp       mac 0-3 (1.0 GiB), box 4-5 (1.0 GiB)  1000.0 tok/s  -       -\n"
        "2      tensor    mlx_ring  -                                     -             -       "
        "Not yet.\n"
    )
    assert exo("instance", "preview", "exo-demo", "--json").json() == api.previews
    assert ("GET", "/instance/previews?model_id=exo-demo") in api.calls


def test_preview_asks_for_what_is_said(exo: Exo, api: FakeApi) -> None:
    words = ["--objective", "throughput", "--context", "512", "--concurrency", "3"]

    exo("instance", "preview", "exo-demo", *words)

    asked = "model_id=exo-demo&objective=throughput&context_length=512&concurrency=3"
    assert ("GET", f"/instance/previews?{asked}") in api.calls


def test_a_preview_over_many_nodes_names_some(exo: Exo, api: FakeApi) -> None:
    api.previews = [preview(64, [(f"n{i}", i, i + 1) for i in range(64)])]

    out = exo("instance", "preview", "exo-demo").out

    assert "n5 5-5 (1.0 GiB), and 58 more" in out
    assert "n6" not in out


def test_drafts_and_bits_are_asked_for_and_shown(exo: Exo, api: FakeApi) -> None:
    exo("instance", "create", "exo-demo", "--draft", "ngram", "--kv-bits", "8")
    assert api.posted == [{"instance": {"model_id": "exo-demo", "draft": "ngram", "kv_bits": 8}}]

    made = {**instance("i1"), "draft": "small", "kv_bits": 4}
    drafts = {"guessed": 200, "accepted": 150, "acceptance": 0.75, "off": None}
    api.instances = {"i1": {**made, "drafts": drafts}}
    out = exo("instance", "show", "i1").out
    assert "small, 75% of 200 tokens right" in out
    assert "4 bits" in out
    api.instances = {"i1": {**made, "drafts": {**drafts, "off": "It has a window."}}}
    assert "off: It has a window." in exo("instance", "show", "i1").out


def test_an_instance_need_not_be_pinned(exo: Exo, api: FakeApi) -> None:
    exo("instance", "create", "exo-demo", "--no-pin", "--no-wait")

    assert api.posted == [{"instance": {"model_id": "exo-demo", "pin": False}}]


def test_pin_and_unpin(exo: Exo, api: FakeApi) -> None:
    exo("instance", "create", "exo-demo", "--no-wait")

    assert "goes when nobody uses it" in exo("instance", "unpin", "new").out
    assert "Stays        while it is used" in exo("instance", "show", "new").out
    assert "stays until it is deleted" in exo("instance", "pin", "new").out
    assert "Stays" not in exo("instance", "show", "new").out
