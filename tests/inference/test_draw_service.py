"""The queue of an image model: what it says of its requests, in which order."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo.errors import EngineError
from exo.inference.image.service import DrawService, preview_steps
from exo.inference.image.types import DrawFinished, Drawing, Drawn, DrawRequest, Preview
from exo.inference.messages import Accepted, Cancel, Draw, LoadStats, RequestFailed
from exo.inference.types import Wire
from tests.fakes.image_engine import MEMORY, FakeImageEngine


class Runner:
    """A service over the fake, and a clock that goes on by a second whenever it is looked at."""

    def __init__(self, max_queue: int = 4) -> None:
        self.engine = FakeImageEngine()
        ticks = itertools.count()
        self.service = DrawService(self.engine, max_queue, lambda: float(next(ticks)))

    def ask(self, request_id: str, **fields: Any) -> list[Wire]:
        given = {"prompt": "a cat", "width": 64, "height": 64, "steps": 3, "seed": 10, **fields}
        return self.service.handle(Draw(request=DrawRequest(request_id=request_id, **given)))

    def finish(self) -> list[Wire]:
        said: list[Wire] = []
        while self.service.busy:
            said += self.service.step()
        return said


def test_every_step_is_told_and_each_picture_has_its_seed():
    runner = Runner()
    assert runner.ask("a", n=2) == [
        Accepted(request_id="a", prompt_tokens=0),
        LoadStats(running=1, waiting=0),
    ]
    said = runner.finish()
    steps = [(m.index, m.step, m.steps) for m in said if isinstance(m, Drawing)]
    assert steps == [(0, 1, 3), (0, 2, 3), (0, 3, 3), (1, 1, 3), (1, 2, 3), (1, 3, 3)]
    assert [m.png for m in said if isinstance(m, Drawn)] == [b"a cat 10 3", b"a cat 11 3"]
    (finished,) = [m for m in said if isinstance(m, DrawFinished)]
    assert (finished.stats.images, finished.stats.steps) == (2, 3)
    assert finished.stats.seconds_per_step == 1.0
    assert finished.stats.peak_memory_usage == MEMORY
    assert said[-2:] == [finished, LoadStats(running=0, waiting=0)]


def test_pictures_from_the_middle_of_a_request():
    runner = Runner()
    runner.ask("a", n=1, first=3)
    (drawn,) = [m for m in runner.finish() if isinstance(m, Drawn)]
    assert (drawn.index, drawn.png) == (3, b"a cat 13 3")


def test_previews_come_between_the_steps():
    runner = Runner()
    runner.ask("a", steps=6, partial_images=2)
    previews = [m for m in runner.finish() if isinstance(m, Preview)]
    assert [(m.number, m.png) for m in previews] == [(0, b"a cat 10 2"), (1, b"a cat 10 4")]


@given(steps=st.integers(1, 100), wanted=st.integers(0, 3))
def test_previews_are_never_of_the_end(steps: int, wanted: int):
    found = preview_steps(steps, wanted)
    assert all(0 < step < steps for step in found)
    assert len(found) == min(wanted, steps - 1)


def test_a_request_that_is_cancelled_is_given_up_and_the_next_one_drawn():
    runner = Runner()
    runner.ask("a")
    assert runner.ask("b", seed=20)[-1] == LoadStats(running=1, waiting=1)
    runner.service.step()
    assert runner.service.handle(Cancel(request_id="a")) == [LoadStats(running=1, waiting=0)]
    assert runner.engine.closed == [10]
    assert {m.request_id for m in runner.finish() if isinstance(m, Drawn)} == {"b"}


def test_what_is_refused_ends_alone():
    runner = Runner()
    runner.ask("a", prompt="refuse this")
    runner.ask("b")
    said = runner.finish()
    (failed,) = [m for m in said if isinstance(m, RequestFailed)]
    assert (failed.request_id, failed.error.code, failed.error.param) == (
        "a",
        "invalid_request",
        "prompt",
    )
    assert [m.request_id for m in said if isinstance(m, Drawn)] == ["b"]


def test_a_full_queue_refuses_with_when_to_come_back():
    runner = Runner(max_queue=1)
    runner.ask("a")
    runner.ask("b")
    (refused,) = runner.ask("c")
    assert isinstance(refused, RequestFailed)
    assert refused.error.code == "queue_full"
    assert refused.error.retry_after


def test_keys_take_turns_and_batch_waits():
    runner = Runner(max_queue=8)
    for name, lane in [("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b")]:
        runner.ask(name, lane=lane)
    runner.ask("later", lane="c", batch=True)
    runner.ask("b2", lane="b")
    order = [m.request_id for m in runner.finish() if isinstance(m, DrawFinished)]
    assert order == ["a1", "b1", "a2", "b2", "a3", "later"]


def test_when_the_engine_fails_all_are_told():
    runner = Runner()
    runner.ask("a", prompt="fail")
    runner.ask("b")
    with pytest.raises(RuntimeError):
        runner.service.step()
    failed = runner.service.fail_all(EngineError("broken"))
    assert [m.request_id for m in failed if isinstance(m, RequestFailed)] == ["a", "b"]
    assert not runner.service.busy
