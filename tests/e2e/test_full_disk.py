"""A full disk stops what must be kept on it, says so, and stops nothing else."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import new_home

from .daemon import Daemon, error_of, processes_of, run_exo

pytestmark = pytest.mark.e2e

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system, as root")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="limits another process's files")

SIZE = 48 * 2**20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


def fill(disk: Path) -> Path:
    """Leave no byte free; the file that takes them all."""
    file = disk / "full"
    with file.open("wb", buffering=0) as stream:
        try:
            while stream.write(b"\0" * 4096) == 4096:
                pass
        except OSError:
            pass
    return file


def check(daemon: Daemon, make_room: Callable[[], object]) -> None:
    """With its disk full, a daemon refuses commands and goes on; with room again, it does both."""
    placed = daemon.get("/instance")["data"]
    response = daemon.http.post("/instance", json={"instance": {"model_id": "tiny"}})
    error = error_of(response, 507, "storage_full")
    assert "disk" in error["message"]
    assert str(daemon.home) in error["message"], "it must say which disk"
    assert int(response.headers["Retry-After"]) > 0
    response = daemon.http.delete(f"/instance/{placed[0]['instance_id']}")
    error_of(response, 507, "storage_full")
    assert daemon.get("/instance")["data"] == placed, "what was refused was not done"
    assert daemon.chat("tiny", max_tokens=4)["choices"], "answers need no disk"
    assert daemon.get("/events"), "what is on the disk can be read"
    make_room()
    instance = daemon.create("tiny-indexed")
    daemon.delete(instance)


@as_root
def test_full_disk(disk: Path, measured: Path, models: Path) -> None:
    home = new_home(disk / "home", measured)
    daemon = Daemon.start(home, models_dir=models, spare_runners=0)
    daemon.create("tiny")
    full = fill(disk)
    check(daemon, full.unlink)
    daemon.stop()


@on_linux
def test_files_may_not_grow(daemon: Daemon) -> None:
    """The same without being root: the system lets none of the daemon's files grow."""
    daemon.create("tiny")
    size = max(file.stat().st_size for file in (daemon.home / "data").glob("state.db*"))
    limits = resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (size, limits[1]))
    check(daemon, lambda: resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, limits))


@as_root
def test_runner_dies_while_the_disk_is_full(disk: Path, measured: Path, models: Path) -> None:
    """What is observed waits in memory, and reaches the disk when there is room."""
    home = new_home(disk / "home", measured)
    daemon = Daemon.start(home, models_dir=models, spare_runners=0)
    instance = daemon.create("tiny")
    index = daemon.get("/state")["index"]
    full = fill(disk)
    [runner] = [s["runner"] for s in instance["shards"]]
    os.kill(runner["pid"], 9)
    again = daemon.wait_ready(instance["instance_id"], since=index)
    assert again["shards"][0]["runner"]["pid"] != runner["pid"]
    assert daemon.chat("tiny", max_tokens=4)["choices"]
    full.unlink()
    daemon.delete(daemon.create("tiny-indexed"))
    told = daemon.events()
    daemon.stop()
    daemon = Daemon.start(home, models_dir=models, spare_runners=0)
    assert daemon.events()[: len(told)] == told
    daemon.wait_ready(instance["instance_id"], since=len(told))
    daemon.stop()


@as_root
@pytest.mark.parametrize("background", [[], ["--background"]], ids=["foreground", "background"])
def test_full_disk_at_the_first_start(disk: Path, background: list[str]) -> None:
    fill(disk)
    done = run_exo(disk / "home", "start", "--port=0", *background)
    assert done.returncode == 4
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr
    assert processes_of(disk / "home") == [], "what could not start has ended"


@as_root
def test_full_disk_at_a_restart(disk: Path, measured: Path, models: Path) -> None:
    """It says so and ends with the code for it, or it starts with what it had: never half."""
    home = new_home(disk / "home", measured)
    daemon = Daemon.start(home, models_dir=models, spare_runners=0)
    instance = daemon.create("tiny")
    daemon.stop()
    full = fill(disk)
    done = run_exo(home, "start", "--port=0")
    assert done.returncode == 4, done.stderr
    assert "Traceback" not in done.stderr
    full.unlink()
    daemon = Daemon.start(home, models_dir=models, spare_runners=0)
    daemon.wait_ready(instance["instance_id"], since=daemon.status["index"])
    daemon.stop()
