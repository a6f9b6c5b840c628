"""`kill -9` of the runner and of the daemon, in the middle of answers."""

import json
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import psutil
import pytest

from tests.conftest import StartDaemon

from .daemon import DONE, Daemon, Json, chat_body, content_of, error_of, run_exo
from .endless import FIELDS, MODEL

pytestmark = pytest.mark.e2e


@pytest.fixture
def daemon(start: StartDaemon) -> Daemon:
    """With a spare runner, which takes the place of one that dies."""
    return start(spare_runners=1)


def runner_of(instance: Json) -> psutil.Process:
    return psutil.Process(instance["shards"][0]["runner"]["pid"])


def read_some(lines: Any, count: int = 5) -> str:
    next(lines)
    return "".join(content_of(next(lines)) for _ in range(count))


def test_runner_dies_in_mid_answer(daemon: Daemon) -> None:
    instance = daemon.create(MODEL)
    index = daemon.get("/state")["index"]
    with ExitStack() as stack:
        streams = [stack.enter_context(daemon.stream(MODEL, **FIELDS)) for _ in range(3)]
        assert all(read_some(lines) for lines in streams)
        runner_of(instance).kill()
        for lines in streams:
            last = list(lines)[-1]
            assert last != DONE
            error = json.loads(last)["error"]
            assert set(error) == {"message", "type", "param", "code"}
            assert (error["type"], error["code"]) == ("server_error", "runner_died")
    again = daemon.wait_ready(instance["instance_id"], since=index)
    assert again["shards"][0]["runner"]["restarts"] == 1
    assert again["reason"] is None
    assert daemon.chat(MODEL, max_tokens=3)["choices"]


def test_request_that_comes_while_the_runner_is_down_waits_for_it(daemon: Daemon) -> None:
    instance = daemon.create(MODEL)
    runner_of(instance).kill()
    # Either the daemon has not noticed yet, and the request ends with the runner; or it waits.
    response = daemon.http.post("/v1/chat/completions", json=chat_body(MODEL, "Hi", max_tokens=3))
    if response.status_code != 200:
        error_of(response, 500, "runner_died")
        assert daemon.chat(MODEL, max_tokens=3)["choices"]


def test_whole_answer_ends_with_an_error_status(daemon: Daemon) -> None:
    instance = daemon.create(MODEL, concurrency=1)
    body = chat_body(MODEL, "Hello", **FIELDS)
    with daemon.stream(MODEL, **FIELDS) as lines, ThreadPoolExecutor(1) as pool:
        read_some(lines)
        # It has no head before its end, so another thread waits for it: in the queue, since the
        # one slot is taken, or on its way there.
        answer = pool.submit(daemon.http.post, "/v1/chat/completions", json=body)
        read_some(lines, 100)
        runner_of(instance).kill()
        error_of(answer.result(), 500, "runner_died")


def test_runner_that_hangs_is_ended(daemon: Daemon) -> None:
    """Stopped as by a debugger or a driver, it is alive and says nothing."""
    instance = daemon.create(MODEL)
    index = daemon.get("/state")["index"]
    with daemon.stream(MODEL, **FIELDS) as lines:
        read_some(lines)
        runner_of(instance).suspend()
        error = json.loads(list(lines)[-1])["error"]
    assert error["code"] == "runner_died"
    assert "has not answered" in error["message"]
    daemon.wait_ready(instance["instance_id"], since=index)
    assert daemon.chat(MODEL, max_tokens=3)["choices"]


def test_runner_dies_again_and_again(daemon: Daemon) -> None:
    instance = daemon.create(MODEL)
    for restarts in (1, 2):
        index = daemon.get("/state")["index"]
        runner_of(instance).kill()
        instance = daemon.wait_ready(instance["instance_id"], since=index)
        assert instance["shards"][0]["runner"]["restarts"] == restarts
    assert daemon.chat(MODEL, max_tokens=3)["choices"]


def test_spare_runner_dies(daemon: Daemon) -> None:
    instance = daemon.create(MODEL)
    used = runner_of(instance).pid
    spares = [process for process in daemon.processes() if process.pid != used]
    for spare in spares:
        spare.kill()
    daemon.delete(daemon.create("tiny"))
    assert daemon.chat(MODEL, max_tokens=3)["choices"]


def test_one_instance_dies_the_other_goes_on(daemon: Daemon) -> None:
    doomed, lives = daemon.create("tiny"), daemon.create(MODEL)
    with daemon.stream(MODEL, **FIELDS) as lines:
        read_some(lines)
        index = daemon.get("/state")["index"]
        runner_of(doomed).kill()
        daemon.wait_ready(doomed["instance_id"], since=index)
        assert read_some(lines)
    assert daemon.get(f"/instance/{lives['instance_id']}")["shards"] == lives["shards"]


def test_daemon_dies_with_eight_open_streams(start: StartDaemon) -> None:
    daemon = start(spare_runners=1)
    instance = daemon.create(MODEL, concurrency=8, context_length=100_000)
    before = daemon.events()
    with ExitStack() as stack:
        streams = [stack.enter_context(daemon.stream(MODEL, **FIELDS)) for _ in range(8)]
        assert all(read_some(lines) for lines in streams)
        orphans = daemon.processes()
        assert orphans
        daemon.process.send_signal(signal.SIGKILL)
        for lines in streams:
            with pytest.raises(httpx.RemoteProtocolError):
                list(lines)
    assert daemon.wait() == -signal.SIGKILL
    _, alive = psutil.wait_procs(orphans, timeout=60)
    assert alive == [], "runners end with their daemon"

    daemon = start()
    assert [i["instance_id"] for i in daemon.get("/instance")["data"]] == [instance["instance_id"]]
    back = daemon.wait_ready(instance["instance_id"], since=before[-1]["index"])
    same = ("instance_id", "model_id", "created_at", "concurrency", "context_length")
    assert [back[name] for name in same] == [instance[name] for name in same]
    assert daemon.events()[: len(before)] == before, "the log goes on where it was"
    assert daemon.status["node_id"] == before[0]["term"]["master_id"]
    assert daemon.chat(MODEL, max_tokens=3)["choices"]


def test_daemon_dies_while_it_loads(start: StartDaemon) -> None:
    daemon = start()
    created = daemon.post("/instance", {"instance": {"model_id": "tiny"}})
    daemon.kill()
    daemon = start()
    daemon.wait_ready(created["instance_id"], since=daemon.status["index"])


def test_stale_record_of_a_killed_daemon(start: StartDaemon) -> None:
    """`daemon.json` survives a kill; nobody mistakes it for a daemon."""
    daemon = start()
    daemon.kill()
    done = run_exo(daemon.home, "status")
    assert done.returncode == 7
    assert "exo start" in done.stderr
    assert run_exo(daemon.home, "stop").returncode == 7
    assert (daemon.home / "state" / "daemon.json").exists(), "else this shows nothing"
