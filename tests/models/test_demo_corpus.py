"""The corpus of the demo model: the same for a seed, and without the held-out questions."""

from __future__ import annotations

import importlib
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "tools" / "demo_model"
MODULES = {path.stem for path in FOLDER.glob("*.py")}


@pytest.fixture(scope="module")
def tools() -> Iterator[dict[str, ModuleType]]:
    """The scripts import each other by bare names: they are taken away again afterwards."""
    before = dict(sys.modules)
    sys.path.insert(0, str(FOLDER))
    try:
        yield {name: importlib.import_module(name) for name in ("corpus", "judge", "render")}
    finally:
        sys.path.remove(str(FOLDER))
        for name in MODULES - before.keys():
            sys.modules.pop(name, None)


def texts(tools: dict[str, ModuleType], seed: int, count: int) -> list[str]:
    return [tools["render"].text(talk) for talk in tools["corpus"].write(seed, count)]


def held_out() -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = json.loads((FOLDER / "heldout.json").read_text(encoding="utf-8"))
    return items


def test_the_same_seed_gives_the_same_corpus(tools: dict[str, ModuleType]) -> None:
    assert texts(tools, 1, 300) == texts(tools, 1, 300)


def test_another_seed_gives_another_corpus(tools: dict[str, ModuleType]) -> None:
    assert texts(tools, 1, 300) != texts(tools, 2, 300)


def test_no_held_out_question_is_trained_on(tools: dict[str, ModuleType]) -> None:
    corpus = tools["corpus"]
    held = {corpus.normalise(corpus.question(item)) for item in held_out()}
    asked = {
        corpus.normalise(message["content"])
        for style in corpus.STYLES
        for talk in corpus.write(21, 5_000, style)
        for message in talk.messages
        if message["role"] == "user"
    }
    assert not held & asked


def test_no_held_out_question_is_a_phrasing(tools: dict[str, ModuleType]) -> None:
    corpus = tools["corpus"]
    held = {corpus.normalise(corpus.question(item)) for item in held_out()}
    phrasings = {
        corpus.normalise(phrasing)
        for grammar in corpus.WIDE
        for intent in grammar.intents.values()
        for phrasing in intent.questions
    }
    assert not held & phrasings


def test_every_held_out_item_has_a_judge(tools: dict[str, ModuleType]) -> None:
    judges = tools["judge"]
    for item in held_out():
        assert item["judge"]["kind"] in judges.JUDGES
        assert judges.right("", item["judge"]) is False


def test_the_held_out_questions_are_many_and_different(tools: dict[str, ModuleType]) -> None:
    items = held_out()
    assert len(items) >= 200
    assert len({json.dumps(item["messages"]) for item in items}) == len(items)
    assert Counter(item["category"] for item in items)["exo"] >= len(items) // 2


def test_every_intent_has_questions_and_an_answer(tools: dict[str, ModuleType]) -> None:
    corpus = tools["corpus"]
    assert len(corpus.FACTS.intents) >= 80
    for grammar in corpus.WIDE:
        assert all(
            intent.questions and 1 <= len(intent.answers) <= 2
            for intent in grammar.intents.values()
        )


@pytest.mark.parametrize(
    ("answer", "judge", "good"),
    [
        ("Run `exo stop`.", {"kind": "all", "of": ["EXO STOP"]}, True),
        ("Run `exo start`.", {"kind": "all", "of": ["exo stop"]}, False),
        ('{"a": 1}', {"kind": "json", "value": {"a": 1}}, True),
        ('{"a": 1}', {"kind": "json", "value": {"a": True}}, False),
        ('It is {"a": 1}', {"kind": "json", "value": {"a": 1}}, False),
        ("3 + 4 = 7", {"kind": "number", "value": 7}, True),
        ("3 + 4 = 8", {"kind": "number", "value": 7}, False),
        ("tea tea tea te", {"kind": "repeats", "word": "tea"}, True),
        ("tea tea cup tea", {"kind": "repeats", "word": "tea"}, False),
        ("I do not know that.", {"kind": "unknown"}, True),
        ("It is Paris.", {"kind": "unknown"}, False),
        (
            '<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>',
            {"kind": "call", "name": "f", "arguments": {"x": 1}},
            True,
        ),
    ],
)
def test_judges(
    tools: dict[str, ModuleType], answer: str, judge: dict[str, Any], good: bool
) -> None:
    assert tools["judge"].right(answer, judge) is good
