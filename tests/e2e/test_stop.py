"""SIGTERM lets open answers finish, a second signal does not."""

import json
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest

from tests.conftest import StartDaemon

from .daemon import (
    DONE,
    EXO,
    Daemon,
    Json,
    chat_body,
    content_of,
    environment,
    error_of,
    processes_of,
    run_exo,
)
from .endless import FIELDS, MODEL

pytestmark = pytest.mark.e2e

# Long enough to be open when the signal arrives, which the log confirms.
LONG = {**FIELDS, "max_tokens": 600}
# As many seconds as a slow machine may need for that.
PATIENT = {"drain_seconds": 100}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_open_streams_are_drained_to_their_end(start: StartDaemon, number: signal.Signals) -> None:
    daemon = start(**PATIENT)
    whole = daemon.chat(MODEL, **LONG)["choices"][0]["message"]["content"]
    with daemon.stream(MODEL, stream_options={"include_usage": True}, **LONG) as lines:
        first = next(lines)
        daemon.signal(number)
        rest = list(lines)
    assert rest[-1] == DONE
    assert json.loads(rest[-2])["usage"]["completion_tokens"] == LONG["max_tokens"]
    text = "".join(content_of(data) for data in [first, *rest[:-2]])
    assert text == whole
    assert daemon.wait() == 0
    assert "Stopping: 1 answers are open." in daemon.log
    assert daemon.processes() == []


def test_open_whole_answer_is_drained(start: StartDaemon) -> None:
    daemon = start(**PATIENT)
    daemon.create(MODEL, concurrency=1)
    body = chat_body(MODEL, "Hello", **FIELDS, max_tokens=20)
    with daemon.stream(MODEL, **LONG) as lines, ThreadPoolExecutor(1) as pool:
        next(lines)
        # In the queue behind the stream: it is answered last, with the daemon stopping.
        answer = pool.submit(daemon.http.post, "/v1/chat/completions", json=body)
        for _ in range(50):
            next(lines)
        daemon.signal(signal.SIGTERM)
        assert list(lines)[-1] == DONE
        response = answer.result()
    assert response.status_code == 200
    assert response.json()["usage"]["completion_tokens"] == 20
    assert daemon.wait() == 0
    assert "Stopping: 2 answers are open." in daemon.log


def test_second_signal_forces(start: StartDaemon) -> None:
    daemon = start(**PATIENT)
    with daemon.stream(MODEL, **FIELDS) as lines:
        next(lines)
        daemon.signal(signal.SIGTERM)
        assert_refuses_new_work(daemon)
        assert content_of(next(lines)) is not None, "the open one goes on"
        daemon.signal(signal.SIGINT)
        with pytest.raises(httpx.RemoteProtocolError):
            list(lines)
    assert daemon.wait() == 130
    assert daemon.processes() == []
    assert not (daemon.home / "state" / "daemon.json").exists()


def test_answers_that_outlast_the_drain_are_cut(start: StartDaemon) -> None:
    daemon = start(drain_seconds=0)
    with daemon.stream(MODEL, **FIELDS) as lines:
        next(lines)
        daemon.signal(signal.SIGTERM)
        with pytest.raises(httpx.RemoteProtocolError):
            list(lines)
    assert daemon.wait() == 0
    assert daemon.processes() == []


def test_stop_while_a_model_loads(start: StartDaemon) -> None:
    daemon = start()
    daemon.post("/instance", {"instance": {"model_id": "tiny"}})
    daemon.stop()


def test_followers_of_events_do_not_hold_up_the_stop(daemon: Daemon) -> None:
    with daemon.http.stream("GET", "/events", params={"follow": "true"}) as response:
        lines = response.iter_lines()
        assert next(lines)
        daemon.signal(signal.SIGTERM)
        with suppress(httpx.RemoteProtocolError):  # There is no end that it could have reached.
            list(lines)
    assert daemon.wait() == 0


def test_exo_stop(daemon: Daemon) -> None:
    daemon.create("tiny")
    done = run_exo(daemon.home, "stop", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["pid"] == daemon.pid
    assert daemon.wait() == 0
    assert daemon.processes() == []


def test_exo_stop_force(start: StartDaemon) -> None:
    daemon = start(**PATIENT)
    with daemon.stream(MODEL, **FIELDS) as lines:
        next(lines)
        done = run_exo(daemon.home, "stop", "--force")
        assert done.returncode == 0, done.stderr
        with pytest.raises(httpx.RemoteProtocolError):
            list(lines)
    assert daemon.wait() == 130


def test_background(home: Path, models: Path) -> None:
    """`exo start --background` returns when the daemon is ready, and the daemon lives on."""
    started = run_exo(home, "start", "--background", "--json", port=0, models_dir=models)
    assert started.returncode == 0, started.stderr
    status = json.loads(started.stdout)
    assert httpx.get(f"{status['api']}/readyz", trust_env=False).status_code == 200
    shown = json.loads(run_exo(home, "status", "--json").stdout)
    same = ("node_id", "pid", "api", "master_id")
    assert [shown[name] for name in same] == [status[name] for name in same]
    left = processes_of(home)
    assert run_exo(home, "stop").returncode == 0
    # It returns when the lock is free, and the last thing that the daemon does is to exit.
    assert psutil.wait_procs(left, timeout=100)[1] == []
    assert processes_of(home) == []


def test_exo_stop_of_a_daemon_that_nobody_reaps(home: Path) -> None:
    """Its parent takes no notice of its end, as the first process of a container may not."""
    with in_foreground(home) as (process, _):
        done = run_exo(home, "stop")
    assert done.returncode == 0, done.stderr
    assert process.returncode == 0


def test_foreground_prints_where_it_is(home: Path) -> None:
    with in_foreground(home) as (process, status):
        assert status["pid"] == process.pid
        assert httpx.get(f"{status['api']}/readyz", trust_env=False).status_code == 200
        process.send_signal(signal.SIGINT)
    assert process.returncode == 0


@contextmanager
def in_foreground(home: Path) -> Iterator[tuple[subprocess.Popen[str], Json]]:
    """`exo start` and what it printed. Something in the block must stop it."""
    process = subprocess.Popen(
        [*EXO, "start", "--json"],
        env=environment(home, {"port": 0}),
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout
        text = ""
        while not text.endswith("\n}\n"):
            line = process.stdout.readline()
            assert line, "it ended before it was ready"
            text += line
        try:
            yield process, json.loads(text)
        except BaseException:
            process.kill()
            raise


def assert_refuses_new_work(daemon: Daemon) -> None:
    """From the moment when the daemon has taken notice of the signal."""
    while (response := daemon.http.get("/readyz")).status_code == 200:
        pass
    error_of(response, 503, "unavailable")
    body = chat_body(MODEL, "Hello", max_tokens=1)
    response = daemon.http.post("/v1/chat/completions", json=body)
    assert "stopping" in error_of(response, 503, "unavailable")["message"]
    assert response.headers["Retry-After"]
