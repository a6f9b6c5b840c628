"""The demo image model's corpus and judge: fair to the held-out prompts, and right itself."""

from __future__ import annotations

import importlib
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "tools" / "demo_image"
MODULES = {path.stem for path in FOLDER.glob("*.py")}


@pytest.fixture(scope="module")
def tools() -> Iterator[dict[str, ModuleType]]:
    """The scripts import each other by bare names: they are taken away again afterwards."""
    before = dict(sys.modules)
    sys.path.insert(0, str(FOLDER))
    names = ("edits", "heldout", "judge", "pictures", "prompts")
    try:
        yield {name: importlib.import_module(name) for name in names}
    finally:
        sys.path.remove(str(FOLDER))
        for name in MODULES - before.keys():
            sys.modules.pop(name, None)


def held_out(name: str = "heldout") -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return items


def test_no_held_out_prompt_or_combination_is_trained_on(tools: dict[str, ModuleType]) -> None:
    prompts, rng = tools["prompts"], np.random.default_rng(3)
    samples = [prompts.sample(rng) for _ in range(10_000)]
    trained = {prompts.normalise(words) for words, _, _ in samples}
    scenes = {(scene.shape, scene.colour, scene.ground) for _, scene, _ in samples}
    assert len(scenes) > 250
    for item in held_out():
        scene = item["scene"]
        assert prompts.normalise(item["prompt"]) not in trained
        assert (scene["shape"], scene["colour"], scene["ground"]) not in scenes


def test_no_held_out_phrasing_is_trained_on(tools: dict[str, ModuleType]) -> None:
    normalise = tools["prompts"].normalise
    trained = {normalise(phrasing) for phrasing in tools["prompts"].PHRASINGS}
    assert not trained & {normalise(phrasing) for phrasing in tools["heldout"].PHRASINGS}


def test_no_held_out_edit_is_trained_on(tools: dict[str, ModuleType]) -> None:
    edits, normalise, rng = tools["edits"], tools["prompts"].normalise, np.random.default_rng(4)
    samples = [edits.sample(rng) for _ in range(10_000)]
    trained = {normalise(edit.prompt) for edit in samples}
    scenes = {(s.shape, s.colour, s.ground) for edit in samples for s in (edit.before, edit.after)}
    for item in held_out("heldout_edits"):
        after = item["after"]
        assert normalise(item["prompt"]) not in trained
        assert (after["shape"], after["colour"], after["ground"]) not in scenes


def test_an_edit_changes_what_its_prompt_says_and_nothing_else(
    tools: dict[str, ModuleType],
) -> None:
    edits, rng = tools["edits"], np.random.default_rng(9)
    for _ in range(500):
        edit = edits.sample(rng)
        before, after = vars(edit.before), vars(edit.after)
        (field,) = [name for name in before if before[name] != after[name]]
        said = edit.prompt if field != "place" else edit.prompt.replace("middle", "centre")
        assert after[field] in said
        assert edit.after.colour != edit.after.ground


def test_the_held_out_list_is_many_different_prompts(tools: dict[str, ModuleType]) -> None:
    items = held_out()
    assert len(items) >= 100
    assert len({item["prompt"] for item in items}) == len(items)
    assert {item["scene"]["shape"] for item in items} == set(tools["pictures"].SHAPES)


def test_the_same_seed_gives_the_same_prompts(tools: dict[str, ModuleType]) -> None:
    sample = tools["prompts"].sample
    first, second = np.random.default_rng(5), np.random.default_rng(5)
    assert [sample(first) for _ in range(50)] == [sample(second) for _ in range(50)]


def test_a_prompt_says_what_it_is_judged_by(tools: dict[str, ModuleType]) -> None:
    prompts, rng = tools["prompts"], np.random.default_rng(6)
    for _ in range(500):
        words, scene, said = prompts.sample(rng)
        assert {scene.shape, scene.colour, scene.ground} <= set(prompts.normalise(words).split())
        assert ("size" in said) == (scene.size in prompts.normalise(words).split())
        assert ("place" in said) == any(words.find(at) >= 0 for at in prompts.AT[scene.place])


def test_the_judge_is_right_on_drawn_pictures(tools: dict[str, ModuleType]) -> None:
    pictures, judge, rng = tools["pictures"], tools["judge"], np.random.default_rng(0)
    every = itertools.product(
        pictures.SHAPES, pictures.COLOURS, pictures.COLOURS, pictures.SIZES, pictures.PLACES
    )
    scenes = [pictures.Scene(*fields) for fields in every if fields[1] != fields[2]]
    chosen = [scenes[index] for index in rng.choice(len(scenes), 400, replace=False)]
    fields = frozenset(("shape", "colour", "ground", "size", "place"))
    good = sum(judge.right(pictures.draw(scene, rng), scene, fields) for scene in chosen)
    assert good >= 0.98 * len(chosen)


@pytest.mark.parametrize(
    ("field", "other"),
    [
        ("shape", "square"),
        ("colour", "green"),
        ("ground", "yellow"),
        ("size", "large"),
        ("place", "left"),
    ],
)
def test_the_judge_sees_what_is_wrong(tools: dict[str, ModuleType], field: str, other: str) -> None:
    pictures, judge = tools["pictures"], tools["judge"]
    scene = pictures.Scene("circle", "red", "blue", "small", "top")
    wrong = pictures.draw(pictures.Scene(**{**vars(scene), field: other}))
    assert judge.right(pictures.draw(scene), scene, frozenset((field,)))
    assert not judge.right(wrong, scene, frozenset((field,)))


def test_an_empty_or_noisy_picture_shows_no_shape(tools: dict[str, ModuleType]) -> None:
    judge = tools["judge"]
    assert judge.look(np.full((64, 64, 3), 200, np.uint8)).shape is None
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    assert judge.look(noise).colour is None or judge.look(noise).ground is None
