"""What tests of several rooms share: tiny models, homes, and the real daemon."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from .e2e.daemon import Daemon

# Where the tests run in the background, Ctrl-C is ignored, and what they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# On a CPU MLX compiles with the system's compiler, for a second at each new shape. Set before
# MLX is imported; the daemons of the tests do not inherit it.
os.environ["MLX_DISABLE_COMPILE"] = "1"

# How long an example takes depends on what else the machine does.
settings.register_profile("exo", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("exo")

StartDaemon = Callable[..., "Daemon"]

# All of the network lab is one piece, since its clusters measure who is alive by time.
_LAB = "lan"
# What takes longest is begun first, so that no process is left alone with it at the end.
_FIRST = (_LAB, "tests/p2p/test_simulation.py")


def piece_of(node_id: str) -> str:
    """The tests that one process runs, one after the other: those of a file share what its fixtures
    make."""
    file, _, _ = node_id.partition("::")
    room = file.removeprefix("tests/").split("/")[0]
    return room if room == _LAB else file


class Pieces(LoadScopeScheduling):
    """Not by marks (`--dist loadgroup`): pytest 9.2 keeps xdist 3.8 from reading them
    (https://github.com/pytest-dev/pytest-xdist/issues/1386)."""

    def _split_scope(self, nodeid: str) -> str:
        return piece_of(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Pieces:
    return Pieces(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: piece_of(item.nodeid) not in _FIRST)


# A context that no test lives to see the end of.
ENDLESS_CONTEXT = 2**20


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with tiny random models. Tests must not write to it."""
    import mlx.core as mx  # noqa: PLC0415  not paid for by tests that need no model

    from .encoder_maker import make_encoder, say_pooling  # noqa: PLC0415
    from .models_maker import make_model  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("models")
    make_model(folder / "tiny")
    make_model(folder / "tiny-indexed", dtype=mx.bfloat16, files=3, seed=1)
    make_model(folder / "tiny-4bit", dtype=mx.bfloat16, bits=4, seed=2)
    make_model(folder / "tiny-endless", context=ENDLESS_CONTEXT, seed=3)
    say_pooling(make_encoder(folder / "tiny-encoder"), "mean_tokens", normalize=False)
    return folder


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose device has been measured, so that not every new home needs seconds for that."""
    from .e2e.daemon import Daemon  # noqa: PLC0415

    home = tmp_path_factory.mktemp("measured") / "home"
    daemon = Daemon.start(home, spare_runners=0)
    daemon.follow(lambda event: event["type"] == "NodeMeasured")
    daemon.stop()
    return home


@pytest.fixture
def home(tmp_path: Path, measured: Path) -> Path:
    """A new home."""
    return new_home(tmp_path / "home", measured)


def new_home(home: Path, measured: Path) -> Path:
    """An empty home but for the measurement, which names the home that it was made in."""
    state = home / "state"
    shutil.copytree(measured / "state" / "cache", state / "cache")
    device = (measured / "state" / "device.json").read_text("utf-8")
    (state / "device.json").write_text(device.replace(str(measured), str(home)), "utf-8")
    return home


@pytest.fixture
def start(home: Path, models: Path) -> Iterator[StartDaemon]:
    """Start a daemon with these settings on this test's home; what still runs at the test's end
    is stopped, and must stop cleanly. It keeps no spare runners, unless the test asks for them:
    most tests need one runner, and starting a process takes seconds."""
    from .e2e.daemon import Daemon  # noqa: PLC0415

    started: list[Daemon] = []
    usual = {"models_dir": models, "spare_runners": 0}

    def call(*flags: str, **settings: object) -> Daemon:
        daemon = Daemon.start(home, *flags, **{**usual, **settings})
        started.append(daemon)
        return daemon

    yield call
    for daemon in started:
        daemon.http.close()
        if daemon.process.poll() is None:
            daemon.stop()


@pytest.fixture
def daemon(start: StartDaemon) -> "Daemon":
    """A daemon of this test's own."""
    return start()


@pytest.fixture(scope="session")
def shared(
    tmp_path_factory: pytest.TempPathFactory, measured: Path, models: Path
) -> Iterator["Daemon"]:
    """One daemon for all tests that leave it as they found it. Its body limit is 1 MiB."""
    from .e2e.daemon import Daemon  # noqa: PLC0415

    home = new_home(tmp_path_factory.mktemp("shared") / "home", measured)
    daemon = Daemon.start(home, models_dir=models, max_body_mb=1)
    yield daemon
    daemon.stop()
    assert "Stopping: 0 answers are open." in daemon.log, "every answer has been given up or ended"
