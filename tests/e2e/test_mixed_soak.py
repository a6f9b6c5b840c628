"""Text and pictures at once, clients that hang up, runners that are killed: at the end the daemon
has what it had at the beginning."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.conftest import new_home
from tests.inference.image.maker import make_image_model

from .daemon import Daemon, Json, chat_body
from .endless import FIELDS, MODEL
from .holding import Holding, probed_path

pytestmark = pytest.mark.e2e

REQUESTS, AT_ONCE = 40, 8
# At these of them a runner is killed: one of the two that draw, the one that writes.
KILLS = {12: "draws", 26: "writes"}
DRAWS = "tiny-klein"
# What a client may be told while a runner is down.
HONEST = {"runner_died", "unavailable"}
# Bytes that 40 requests may leave a process larger; one answer with pictures is a third of a MiB.
GROWTH = 6 * 2**20


@pytest.fixture
def daemon(
    tmp_path: Path, models: Path, measured: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Daemon]:
    monkeypatch.setenv("PYTHONPATH", probed_path())
    folder = tmp_path / "models"
    make_image_model(folder / DRAWS, "flux.2-klein-4b")
    (folder / MODEL).symlink_to(models / MODEL)
    daemon = Daemon.start(new_home(tmp_path / "home", measured), models_dir=folder, spare_runners=0)
    yield daemon
    daemon.stop()


def picture(**fields: object) -> Json:
    settings = {"num_inference_steps": 4, "seed": 5}
    known = {"model": DRAWS, "prompt": "a red circle", "size": "128x128"}
    return {**known, "advanced_params": settings, **fields}


def ask(daemon: Daemon, number: int) -> str:
    """One request of the soak; how it ended."""
    match number % 4:
        case 0:
            body = chat_body(MODEL, "Hello", max_tokens=20, **FIELDS)
            return whole(daemon, "/v1/chat/completions", body)
        case 1:
            return whole(daemon, "/v1/images/generations", picture(n=2))
        case 2:
            body = chat_body(MODEL, "Hello", stream=True, **FIELDS)
            return left(daemon, "/v1/chat/completions", body)
        case _:
            settings = {"num_inference_steps": 100, "seed": 5}
            body = picture(n=10, stream=True, advanced_params=settings)
            return left(daemon, "/v1/images/generations", body)


def whole(daemon: Daemon, path: str, body: Json) -> str:
    response = daemon.http.post(path, json=body)
    return "answered" if response.status_code == 200 else response.json()["error"]["code"]


def left(daemon: Daemon, path: str, body: Json) -> str:
    """It would not end, and is read for three lines."""
    with daemon.http.stream("POST", path, json=body) as response:
        if response.status_code != 200:
            response.read()
            return response.json()["error"]["code"]
        lines = response.iter_lines()
        for _ in range(3):
            next(lines, None)
        return "left"


def memory(daemon: Daemon, instance: Json) -> list[int]:
    """Bytes of the daemon and of the runner of an instance."""
    pids = (daemon.pid, instance["shards"][0]["runner"]["pid"])
    return [psutil.Process(pid).memory_info().rss for pid in pids]


def test_mixed_requests_leave_nothing_behind(daemon: Daemon) -> None:
    writes, draws, also_draws = (daemon.create(model) for model in (MODEL, DRAWS, DRAWS))
    killed = {"draws": draws, "writes": writes}

    def work(number: int) -> str:
        if who := KILLS.get(number):
            psutil.Process(killed[who]["shards"][0]["runner"]["pid"]).kill()
        return ask(daemon, number)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        assert set(pool.map(lambda number: ask(daemon, number), range(8))) == {"answered", "left"}
        # Both have drawn, so that both have all that drawing takes.
        assert whole(daemon, "/v1/images/generations", picture(n=4)) == "answered"
        before, index = Holding.of(daemon), daemon.get("/state")["index"]
        sizes = memory(daemon, also_draws)
        outcomes = Counter(pool.map(work, range(REQUESTS)))

    assert outcomes.keys() <= {"answered", "left"} | HONEST
    assert outcomes["answered"] >= REQUESTS // 4
    for instance in killed.values():
        daemon.wait_ready(instance["instance_id"], since=index)
    assert whole(daemon, "/v1/images/generations", picture(n=4)) == "answered"
    assert daemon.text(MODEL, max_tokens=3, **FIELDS)
    after = Holding.of(daemon)
    assert not after.is_more_than(before), f"{after} now, {before} before"
    assert len(after.children) == len(before.children)
    grown = [a - b for a, b in zip(memory(daemon, also_draws), sizes, strict=True)]
    assert max(grown) < GROWTH, grown
