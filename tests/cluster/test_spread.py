"""Who draws which of a request's pictures, and what of it the client is told."""

from collections.abc import Sequence

import pytest

from exo.cluster.requests import Output
from exo.cluster.spread import Drawer, Part, Spread, counts
from exo.errors import ExoError, InstanceNotFound, QueueFull, RequestError, RunnerDied
from exo.inference.image.types import (
    DrawFinished,
    Drawing,
    Drawn,
    DrawRequest,
    DrawStats,
    Preview,
)
from exo.inference.messages import Accepted

STEPS = 2


def asked(n: int) -> DrawRequest:
    return DrawRequest(request_id="r", prompt="", width=16, height=16, steps=STEPS, seed=5, n=n)


def spread(n: int, **paces: float) -> Spread:
    return Spread(asked(n), [Drawer(name, pace) for name, pace in paces.items()])


def pictures(parts: Sequence[Part]) -> dict[str, list[int]]:
    return {p.instance_id: list(range(p.request.first, _end(p))) for p in parts}


def _end(part: Part) -> int:
    return part.request.first + part.request.n


def says(part: Part, index: int) -> list[Output]:
    """All that a runner says of one picture of its part."""
    known = {"request_id": part.request.request_id, "index": index}
    strokes = [Drawing(**known, step=step, steps=STEPS) for step in (1, STEPS)]
    return [strokes[0], Preview(**known, number=0, png=b"p"), strokes[1], Drawn(**known, png=b"d")]


def draw(spread: Spread, part: Part, indices: Sequence[int] | None = None) -> list[Output]:
    """Have a part draw these of its pictures, or all: what the client is told."""
    said: list[Output] = [Accepted(request_id=part.request.request_id, prompt_tokens=0)]
    for index in range(part.request.first, _end(part)) if indices is None else indices:
        said += says(part, index)
    return [told for each in said for told in spread.heard(part, each)]


def stats(images: int, **fields: float) -> DrawStats:
    known = {"queue_time": 1.0, "seconds_per_step": 0.5, "total_time": 9.0, "peak_memory_usage": 7}
    sizes = {"images": images, "steps": STEPS, "width": 16, "height": 16}
    return DrawStats.model_validate({**sizes, **known, **fields})


@pytest.mark.parametrize(
    ("drawers", "expected"),
    [
        ([Drawer("a", 1), Drawer("b", 1)], [2, 2]),
        ([Drawer("a", 3), Drawer("b", 1)], [3, 1]),
        ([Drawer("a", 9), Drawer("b", 1)], [4, 0]),
        ([Drawer("a", 1, backlog=2), Drawer("b", 1)], [1, 3]),
    ],
)
def test_each_gets_as_many_as_it_is_fast_and_free(drawers: list[Drawer], expected: list[int]):
    assert counts(4, drawers) == expected


def test_runs_are_in_order_and_each_picture_is_drawn_once():
    parts = spread(5, a=1, b=1).begin()
    assert pictures(parts) == {"a": [0, 1, 2], "b": [3, 4]}
    assert {part.request.seed for part in parts} == {5}, "the runner adds the picture's number"
    assert len({part.request.request_id for part in parts}) == 2


def test_one_instance_is_asked_for_all_as_the_client_asked():
    (part,) = spread(3, a=1).begin()
    assert part.request == asked(3)


def test_one_picture_is_for_the_one_that_is_done_first():
    assert pictures(spread(1, a=1, b=2).begin()) == {"b": [0]}


def test_what_comes_is_told_as_of_one_request():
    made = spread(2, a=1, b=1)
    one, other = made.begin()
    told = [*draw(made, one), *draw(made, other)]
    assert {each.request_id for each in told} == {"r"}
    assert [type(each) for each in told].count(Accepted) == 1
    assert [each.index for each in told if isinstance(each, Drawn)] == [0, 1]


def test_the_statistics_are_of_all():
    made = spread(3, a=2, b=1)
    parts = {part.instance_id: part for part in made.begin()}
    assert made.finished(parts["a"], stats(2, seconds_per_step=1.0, peak_memory_usage=9)) == []
    assert not made.done
    made.finished(parts["b"], stats(1, seconds_per_step=4.0, queue_time=0.5, approximate=True))
    assert made.done
    expected = stats(3, queue_time=0.5, seconds_per_step=2.0, total_time=30.0, peak_memory_usage=9)
    near = expected.model_copy(update={"approximate": True})
    assert made.end(30.0) == DrawFinished(request_id="r", stats=near)


def test_statistics_of_one_are_its_own():
    made = spread(2, a=1)
    (part,) = made.begin()
    made.finished(part, stats(2))
    assert made.end(30.0).stats == stats(2)


def test_what_a_lost_one_has_not_drawn_is_drawn_by_the_first_that_is_free():
    made = spread(6, a=1, b=1, c=1)
    a, b, c = made.begin()
    draw(made, a, [0])
    assert made.lost(a, RunnerDied("gone")) == [], "nobody is free"
    draw(made, c)
    (again,) = made.finished(c, stats(2))
    assert pictures([again]) == {"c": [1]}
    draw(made, b)
    assert made.finished(b, stats(2)) == []
    draw(made, again)
    made.finished(again, stats(1))
    assert made.done


def test_one_that_had_nothing_to_draw_takes_the_place_of_one_that_is_lost():
    made = spread(1, a=9, b=1)
    (a,) = made.begin()
    assert pictures(made.lost(a, RunnerDied("gone"))) == {"b": [0]}


def test_one_that_refuses_for_want_of_room_is_passed_over():
    made = spread(1, a=1, b=1)
    (a,) = made.begin()
    (b,) = made.lost(a, QueueFull("full"))
    with pytest.raises(QueueFull):
        made.lost(b, QueueFull("full"))


def test_the_client_is_not_told_twice_of_what_is_drawn_again():
    made = spread(2, a=1, b=1)
    a, b = made.begin()
    before = [told for each in says(a, 0)[:2] for told in made.heard(a, each)]
    assert [type(each) for each in before] == [Drawing, Preview]
    draw(made, b)
    made.finished(b, stats(1))
    again = made.lost(a, RunnerDied("gone"))
    assert [type(each) for each in draw(made, again[0])] == [Drawing, Drawn]


def test_what_all_would_refuse_ends_the_request():
    made = spread(2, a=1, b=1)
    a, _ = made.begin()
    with pytest.raises(RequestError):
        made.lost(a, RequestError("no", param="size"))


def test_an_instance_that_was_deleted_is_lost_like_any_other():
    made = spread(1, a=1, b=1)
    (a,) = made.begin()
    assert pictures(made.lost(a, InstanceNotFound("gone"))) == {"b": [0]}


@pytest.mark.parametrize("n", [1, 3])
def test_the_request_ends_with_the_error_when_none_is_left(n: int):
    made = spread(n, a=1, b=1)
    parts = made.begin()
    errors: list[ExoError] = []
    while parts:
        try:
            parts = [*parts[1:], *made.lost(parts[0], RunnerDied(parts[0].instance_id))]
        except RunnerDied as error:
            errors.append(error)
            parts = parts[1:]
    assert len(errors) == 1
    assert made.done


def test_all_pictures_of_one_that_is_lost_at_the_very_end_count():
    made = spread(2, a=1, b=1)
    a, b = made.begin()
    draw(made, a)
    draw(made, b)
    made.finished(b, stats(1))
    assert made.lost(a, RunnerDied("gone")) == []
    assert made.done
    assert made.end(3.0).stats.images == 2
