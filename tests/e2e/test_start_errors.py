"""What keeps the daemon from starting: an exit code of its own, and one clear line."""

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import StartDaemon

from .daemon import Daemon, NotStartedError, run_exo

pytestmark = pytest.mark.e2e

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system, as root")


def told(done: subprocess.CompletedProcess[str]) -> str:
    """What a failed start says: an error and a hint, no traceback, nothing on stdout."""
    assert done.stdout == ""
    assert done.stderr.startswith("Error: ")
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("background", [[], ["--background"]], ids=["foreground", "background"])
def test_port_in_use(home: Path, background: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = run_exo(home, "start", f"--port={port}", *background)
    assert done.returncode == 5
    assert str(port) in told(done)


def test_port_is_found_in_use_while_another_home_serves_on_it(daemon: Daemon, home: Path) -> None:
    port = daemon.base_url.rsplit(":", 1)[1]
    done = run_exo(home.parent / "other", "start", f"--port={port}")
    assert done.returncode == 5
    assert daemon.get("/readyz") == {"status": "ready"}


@pytest.mark.parametrize("background", [[], ["--background"]], ids=["foreground", "background"])
def test_second_daemon(daemon: Daemon, home: Path, background: list[str]) -> None:
    done = run_exo(home, "start", "--port=0", *background)
    assert done.returncode == 3
    assert str(home) in told(done)
    assert daemon.get("/readyz") == {"status": "ready"}
    assert run_exo(home, "status").returncode == 0, "the first one's address is still on record"


@pytest.mark.parametrize("background", [[], ["--background"]], ids=["foreground", "background"])
def test_home_is_a_file(tmp_path: Path, background: list[str]) -> None:
    home = tmp_path / "home"
    home.write_text("not a folder")
    done = run_exo(home, "start", "--port=0", *background)
    assert done.returncode == 4
    assert str(home) in told(done)
    assert home.read_text() == "not a folder"


@pytest.mark.parametrize("name", ["state.db", "identity.key"])
def test_a_folder_where_a_file_should_be(home: Path, name: str) -> None:
    (home / "data" / name).mkdir(parents=True)
    done = run_exo(home, "start", "--port=0")
    assert done.returncode == 4
    assert name in told(done)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "read-only"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


@as_root
def test_home_cannot_be_written(read_only: Path) -> None:
    done = run_exo(read_only / "home", "start", "--port=0")
    assert done.returncode == 4
    assert "Read-only" in told(done)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_home_belongs_to_another(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o500)
    done = run_exo(home, "start", "--port=0")
    assert done.returncode == 4
    assert "ermission denied" in told(done)


def test_wrong_setting(home: Path) -> None:
    done = run_exo(home, "start", "--port=0", max_body_mb="plenty")
    assert done.returncode == 2
    assert "EXO_MAX_BODY_MB" in told(done)


def test_broken_config_file(home: Path) -> None:
    (home / "config.toml").write_text("port = = 1")
    done = run_exo(home, "start")
    assert done.returncode == 2
    assert "config.toml" in told(done)


def test_keys_are_asked_for_or_not(home: Path) -> None:
    done = run_exo(home, "start", "--port=0", "--insecure", "--require-keys")
    assert done.returncode == 2
    assert "'insecure' and 'require_keys'" in told(done)


def test_address_of_no_interface(home: Path) -> None:
    done = run_exo(home, "start", "--port=0", "--host=192.0.2.1", "--insecure")
    assert done.returncode == 2
    assert "192.0.2.1" in told(done)


def test_failed_start_leaves_nothing(home: Path, start: StartDaemon) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(NotStartedError) as failed:
            start(port=port)
    assert failed.value.code == 5
    assert failed.value.error
    assert failed.value.error["code"] == "port_in_use"
    assert not (home / "state" / "daemon.json").exists()
    assert start().get("/healthz") == {"status": "ok"}
