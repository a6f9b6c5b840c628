"""`exo instance`: create with its progress, and what is done with ids."""

from pathlib import Path

import pytest

from .conftest import Exo
from .fake_api import NODE_ID, FakeApi, instance, loading

DETAILS = (
    "Instance     new-instance\n"
    "Model        exo-demo\n"
    "Status       ready\n"
    "Sharding     pipeline\n"
    "Context      4096 tokens\n"
    "Concurrency  4\n"
    "Created      2026-11-23T10:00:00Z\n"
    "\n"
    "RANK  LAYERS  MEMORY   RUNNER   PID  RESTARTS  NODE\n"
    f"0     0-5     5.0 MiB  loading  42   0         {NODE_ID}\n"
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
    ]


def test_create_prints_the_instance_as_json(exo: Exo, api: FakeApi) -> None:
    made = exo("instance", "create", "exo-demo", "--json").json()

    assert made == api.instances["new-instance"]
    assert (made["instance_id"], made["status"]) == ("new-instance", "ready")


def test_create_sends_what_is_asked(exo: Exo, api: FakeApi) -> None:
    words = ["--min-nodes", "2", "--sharding", "tensor", "--context", "512", "--concurrency", "3"]

    exo("instance", "create", "exo-demo", *words)

    assert api.posted == [
        {
            "instance": {
                "model_id": "exo-demo",
                "min_nodes": 2,
                "sharding": "tensor",
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
    assert "failed (segfault)  42   3 " in out


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


def test_preview(exo: Exo, api: FakeApi) -> None:
    placement = {
        "memory_by_node": {NODE_ID: 2 * 1024**3},
        "prefill_tps": 1000.0,
        "decode_tps": None,
    }
    head = {"model_id": "exo-demo", "instance_meta": "local", "memory_delta_by_node": None}
    api.previews = [
        {**head, "sharding": "pipeline", "min_nodes": 1, "instance": placement, "error": None},
        {**head, "sharding": "tensor", "min_nodes": 2, "instance": None, "error": "Too few nodes."},
    ]

    assert exo("instance", "preview", "exo-demo").out == (
        "SHARDING  META   MIN NODES  NODES  MEMORY   PREFILL       DECODE  PROBLEM\n"
        "pipeline  local  1          1      2.0 GiB  1000.0 tok/s  -       -\n"
        "tensor    local  2          -      -        -             -       Too few nodes.\n"
    )
    assert exo("instance", "preview", "exo-demo", "--json").json() == api.previews
    assert ("GET", "/instance/previews?model_id=exo-demo") in api.calls
