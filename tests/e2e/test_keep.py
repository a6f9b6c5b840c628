"""How long models stay: what a request placed, and what was created."""

import pytest

from .daemon import Daemon, Json, error_of

pytestmark = pytest.mark.e2e

MODEL = "tiny-indexed"


def ask(daemon: Daemon, **fields: object) -> Json:
    """Ollama's way to load and unload a model."""
    return daemon.post("/api/generate", {"model": MODEL, "stream": False, **fields})


def instances(daemon: Daemon) -> list[Json]:
    return [one for one in daemon.get("/instance")["data"] if one["model_id"] == MODEL]


@pytest.fixture(autouse=True)
def _clean(shared: Daemon) -> None:
    """No instance of the model but the test's own."""
    for instance in instances(shared):
        shared.delete(instance)


def wait_gone(daemon: Daemon, instance: Json) -> None:
    daemon.follow(
        lambda event: (
            event["type"] == "InstanceDeleted" and event["instance_id"] == instance["instance_id"]
        )
    )


def test_a_model_that_a_request_placed_goes_when_it_is_told_to(shared: Daemon) -> None:
    assert ask(shared, keep_alive=-1)["done_reason"] == "load"
    [instance] = instances(shared)
    assert instance["pinned"] is False
    [running] = [one for one in shared.get("/api/ps")["models"] if one["model"] == MODEL]
    assert running["expires_at"].startswith("9999")

    ask(shared, keep_alive="5m")
    [running] = [one for one in shared.get("/api/ps")["models"] if one["model"] == MODEL]
    assert not running["expires_at"].startswith("9999")

    assert ask(shared, keep_alive=0)["done_reason"] == "unload"
    wait_gone(shared, instance)
    assert instances(shared) == []


def test_a_model_goes_after_an_answer_that_was_its_last(shared: Daemon) -> None:
    since = shared.get("/state")["index"]
    answer = ask(shared, prompt="Hello", keep_alive=0, options={"num_predict": 3})
    assert answer["done_reason"] == "length"
    created = shared.follow(
        lambda event: (
            event["type"] == "InstanceCreated"
            and event["instance"]["card"]["model_id"] == MODEL
            and not event["instance"]["pinned"]
        ),
        since=since,
    )
    wait_gone(shared, created["instance"])


def test_what_was_created_stays_unless_it_is_unpinned(shared: Daemon) -> None:
    instance = shared.create(MODEL)
    where = f"/instance/{instance['instance_id']}"
    assert instance["pinned"] is True
    body = {"model": MODEL, "keep_alive": 0}
    refused = shared.http.post("/api/generate", json=body)
    assert refused.status_code == 400
    assert "is pinned, and stays" in refused.json()["error"]
    ask(shared, prompt="Hello", keep_alive=0, options={"num_predict": 1})
    assert instances(shared)

    assert shared.post(f"{where}/unpin", {})["pinned"] is False
    assert ask(shared, keep_alive=0)["done_reason"] == "unload"
    wait_gone(shared, instance)
    error_of(shared.http.post(f"{where}/pin"), 404, "instance_not_found")
