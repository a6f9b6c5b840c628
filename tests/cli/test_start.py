"""`exo start` and `exo stop`, in the foreground and as processes of their own."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

import exo as exo_package
from exo.cli import local, start
from exo.config import Paths, Settings, find_paths
from exo.errors import AlreadyRunning, ConfigError

from .conftest import Exo, record
from .fake_api import NODE_ID, OPEN, TOKEN, FakeApi


class FakeDaemon(SimpleNamespace):
    """`exo.daemon` in this process: is ready at once, and ends."""

    code = 0
    error: Exception | None = None
    settings: Settings | None = None
    open_to_network = False

    def run(self, settings: Settings, _paths: Paths, on_ready: Any, _measured: Any) -> int:
        self.settings = settings
        if self.error:
            raise self.error
        with FakeApi() as api:
            api.open_to_network = self.open_to_network
            on_ready(api.status(1))
        return self.code


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> FakeDaemon:
    fake = FakeDaemon()
    monkeypatch.setattr(exo_package, "daemon", fake, raising=False)
    monkeypatch.setitem(sys.modules, "exo.daemon", fake)
    return fake


def test_the_banner(exo: Exo, daemon: FakeDaemon) -> None:
    result = exo("start")

    assert result.code == 0
    lines = result.out.splitlines()
    assert lines[0].startswith("API      http://127.0.0.1:")
    assert lines[1:] == [
        "Node     box (master)",
        f"Node id  {NODE_ID}",
        "Device   Test CPU, 8 cores (cpu)",
        "Memory   12.0 GiB of 16.0 GiB available",
        "FLOP/s   150 GFLOP/s (float32)",
        "Cluster  exo, 1 node, open",
    ]


def test_the_banner_says_how_to_close_an_open_cluster(exo: Exo, daemon: FakeDaemon) -> None:
    daemon.open_to_network = True

    assert exo("start").out.endswith(f"Cluster  exo, 1 node, open\n\n{OPEN}\n")


def test_a_terminal_gets_a_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("NO_COLOR")
    with FakeApi() as api:
        text = start.banner(api.status(1))

    assert "─ exo ─" in text
    assert NODE_ID in text
    assert "Press Ctrl-C to stop." in text


def test_the_status_as_json(exo: Exo, daemon: FakeDaemon) -> None:
    status = exo("start", "--json").json()

    assert (status["node_id"], status["pid"]) == (NODE_ID, 1)


def test_flags_are_settings(exo: Exo, daemon: FakeDaemon, tmp_path: Path) -> None:
    words = ["--host", "::1", "--port", "0", "--name", "n", "--cluster-name", "c"]
    words += ["--peer", "/ip4/10.0.0.2/tcp/1", "--peer", "/dns4/mac/tcp/2", "--p2p-port", "0"]
    words += [
        "--no-discovery",
        "--models-dir",
        "m",
        "--insecure",
        "--no-auto-place",
        "--log-level",
        "debug",
    ]

    exo("start", *words)

    assert daemon.settings == Settings(
        host="::1",
        port=0,
        name="n",
        cluster_name="c",
        peers=("/ip4/10.0.0.2/tcp/1", "/dns4/mac/tcp/2"),
        p2p_port=0,
        discovery=False,
        models_dir=tmp_path / "m",
        insecure=True,
        auto_place=False,
        log_level="debug",
    )


def test_flags_reach_a_daemon_in_the_background() -> None:
    flags = {"port": 0, "name": None, "peers": ["/a", "/b"], "insecure": True, "discovery": False}

    words = ["--port=0", "--peer=/a", "--peer=/b", "--insecure", "--no-discovery"]
    assert start._arguments(flags) == words
    assert start._arguments({"peers": None}) == []


class Joined:
    """`exo.p2p.joining`: remembers what was joined with."""

    def __init__(self) -> None:
        self.calls: list[tuple[Path, str]] = []

    def join(self, path: Path, token: str) -> None:
        if not token.startswith("exo1-"):
            raise ConfigError("That is no join token.", hint="Copy the whole of it.")
        self.calls.append((path, token))


@pytest.fixture
def joining(monkeypatch: pytest.MonkeyPatch) -> Joined:
    fake = Joined()
    monkeypatch.setattr("exo.p2p.joining.join", fake.join)
    return fake


def test_a_token_is_kept_before_the_daemon_starts(
    exo: Exo, daemon: FakeDaemon, joining: Joined, paths: Paths
) -> None:
    assert exo("start", "--join", TOKEN).code == 0

    assert joining.calls == [(paths.cluster, TOKEN)]
    assert paths.cluster.parent.is_dir()
    assert daemon.settings == Settings()


def test_a_mistyped_token_is_exit_2(exo: Exo, daemon: FakeDaemon, joining: Joined) -> None:
    result = exo("start", "--join", "exo")

    assert (result.code, daemon.settings) == (2, None)
    assert result.err == "Error: That is no join token.\nCopy the whole of it.\n"


def test_a_running_daemon_keeps_its_cluster(
    exo: Exo, daemon: FakeDaemon, joining: Joined, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exo.cli.local.is_running", lambda _: True)

    result = exo("start", "--join", TOKEN, "--background")

    assert (result.code, joining.calls) == (3, [])
    assert "Stop it with `exo stop`, then join." in result.err


def test_a_token_is_no_argument_of_the_daemon(
    exo: Exo, joining: Joined, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched: list[dict[str, Any]] = []

    def launch(flags: dict[str, Any]) -> dict[str, Any]:
        launched.append(flags)
        status = {"cluster": {"warning": OPEN}, "access": {"note": None}}
        return {"api": "http://127.0.0.1:1", "pid": 1, **status}

    monkeypatch.setattr(start, "launch", launch)

    result = exo("start", "--background", "--join", TOKEN, "--port", "7")

    assert result.err == f"{OPEN}\n"

    assert [call[1] for call in joining.calls] == [TOKEN]
    assert TOKEN not in " ".join(start._arguments(launched[0]))


def test_what_is_not_given_comes_from_the_environment(
    exo: Exo, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXO_PORT", "7")
    monkeypatch.setenv("EXO_INSECURE", "1")

    exo("start")

    assert daemon.settings == Settings(port=7, insecure=True)


def test_help_texts_are_the_settings_own(exo: Exo) -> None:
    text = " ".join(exo("start", "--help").out.split())
    daemon_flags = ["host", "port", "name", "cluster_name", "models_dir", "insecure"]
    daemon_flags += [
        "require_keys",
        "auto_place",
        "log_level",
        "p2p_port",
        "discovery",
        "ring_encryption",
    ]

    for name in daemon_flags:
        assert (Settings.model_fields[name].description or "?") in text


def test_a_wrong_setting_is_exit_2(exo: Exo, daemon: FakeDaemon) -> None:
    result = exo("start", "--log-level", "loud")

    assert result.code == 2
    assert "The setting 'log_level' from --log-level is wrong" in result.err


def test_the_daemons_error_and_code_are_the_commands(exo: Exo, daemon: FakeDaemon) -> None:
    daemon.error = AlreadyRunning("exo is already running.", hint="Stop it.")

    result = exo("start")

    assert (result.code, result.err) == (3, "Error: exo is already running.\nStop it.\n")

    daemon.error, daemon.code = None, 130

    assert exo("start").code == 130


@pytest.fixture
def background(process_exo: Exo, paths: Paths) -> Iterator[Exo]:
    """`exo` as processes; what they leave running is ended."""
    yield process_exo
    if paths.daemon.exists():
        pid = json.loads(paths.daemon.read_text())["pid"]
        if psutil.pid_exists(pid):
            os.kill(pid, signal.SIGKILL)


def test_background_start_status_and_stop(background: Exo, paths: Paths) -> None:
    started = background("start", "--background", "--name", "here", "--json")
    status = started.json()

    assert (started.code, started.err) == (0, "")
    assert status["node_id"] == NODE_ID
    assert os.getsid(status["pid"]) == status["pid"]
    assert "Node     here (master)\n" in background("status").out

    stopped = background("stop", "--json").json()

    assert (stopped["stopped"], stopped["pid"], stopped["forced"]) == (True, status["pid"], False)
    assert not local.is_running(paths)
    assert background("stop").code == 7


def test_background_says_where_it_is(background: Exo, paths: Paths) -> None:
    result = background("start", "--background")

    daemon = json.loads(paths.daemon.read_text())
    assert result.out == f"exo is running at {daemon['api']} (pid {daemon['pid']}).\n"


def test_background_passes_the_error_on(background: Exo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUB_DAEMON", "refuse")

    result = background("start", "--background", "--port", "7")

    assert (result.code, result.out) == (5, "")
    assert result.err == "Error: Port 7 is taken.\nChoose another.\n"


def test_background_notices_a_crash(background: Exo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUB_DAEMON", "crash")

    result = background("start", "--background")

    assert result.code == 6
    assert "The daemon ended before it was ready (exit code 9)." in result.err


def test_a_daemon_that_is_never_ready_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    read_end, write_end = os.pipe()
    monkeypatch.setattr(start, "READY_TIMEOUT", 0)
    try:
        with pytest.raises(start.DaemonError, match="not ready within"):
            start._read_to_end(read_end)
    finally:
        os.close(read_end)
        os.close(write_end)


def test_a_daemon_outlives_a_starter_that_left() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)

    start._Starter(write_end).ready({"pid": 1})


def test_force_is_a_second_signal(background: Exo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUB_DAEMON", "stubborn")
    background("start", "--background")

    result = background("stop", "--force")

    assert result.code == 0
    assert "has stopped after" in result.out


def test_a_daemon_that_drains_too_long(
    exo: Exo, background: Exo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB_DAEMON", "stubborn")
    monkeypatch.setenv("EXO_DRAIN_SECONDS", "0")
    monkeypatch.setattr("exo.cli.stop.MARGIN", 0.1)
    background("start", "--background")

    result = exo("stop")

    assert result.code == 6
    assert "is still running after 0 s.\nTry `exo stop --force`.\n" in result.err


def test_stop_without_a_daemon(exo: Exo) -> None:
    result = exo("stop")

    assert (result.code, result.err) == (
        7,
        "Error: exo is not running.\nStart it with `exo start`.\n",
    )


def test_a_record_without_a_lock_is_not_killed(exo: Exo, paths: Paths) -> None:
    paths.prepare()
    paths.lock.touch()
    with bystander() as other:
        record(paths, "http://127.0.0.1:1", other.pid, "2100-01-01T00:00:00+00:00")

        assert exo("stop").code == 7
        assert other.poll() is None


def test_a_pid_that_passed_to_another_process_is_not_killed(exo: Exo, paths: Paths) -> None:
    paths.prepare()
    with bystander() as other, paths.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        record(paths, "http://127.0.0.1:1", other.pid, "2000-01-01T00:00:00+00:00")

        result = exo("stop")

        assert result.code == 6
        assert "it is starting or stopping" in result.err
        assert other.poll() is None


class bystander:  # noqa: N801  reads as what it is in `with`
    """A process that has nothing to do with exo."""

    def __enter__(self) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
        return self._process

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait()


def test_folders_that_cannot_be_used(exo: Exo, home: Path) -> None:
    home.write_text("a file")

    result = exo("start", "--background")

    assert result.code == 4
    assert str(find_paths().config) in result.err
