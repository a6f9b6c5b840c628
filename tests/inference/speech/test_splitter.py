"""Thoughts, text and calls, taken apart however the text comes in pieces."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo.inference.speech.speech import (
    PLAIN,
    Call,
    Called,
    NotACallError,
    Piece,
    Said,
    Speech,
    Thought,
    Tools,
)
from exo.inference.speech.splitter import Splitter, State
from tests.inference.speech.pieces import told

THINK = ("<think>", "</think>")
CALL = '<call>\n{"name": "f", "arguments": {"a": "}</call>\\"", "c": [1, {}]}}\n</call>'


def read(text: str) -> list[Call]:
    """`name:arguments`, several with a semicolon between."""
    calls = [each.strip().partition(":") for each in text.split(";")]
    if not all(colon for _, colon, _ in calls):
        raise NotACallError
    return [Call(name, arguments) for name, _, arguments in calls]


def read_json(text: str) -> list[Call]:
    try:
        found = json.loads(text)
        return [Call(found["name"], json.dumps(found["arguments"]))]
    except (ValueError, KeyError, TypeError) as error:
        raise NotACallError from error


JSON = Tools("<call>", "</call>", read_json, json=True)
WORDS = Tools("<call>", "</call>", read)
OPEN = Tools("[CALLS]", "", read)


CASES = [
    (PLAIN, "  as <think>it</think> is <call>\n", [Said("  as <think>it</think> is <call>\n")]),
    (Speech(THINK), "said", [Said("said")]),
    (Speech(THINK), "<think>\nwell \n</think>\n\nsaid ", [Thought("well"), Said("said ")]),
    (Speech(THINK, thinking=True), "\nwell\n</think>\n\nsaid", [Thought("well"), Said("said")]),
    (Speech(THINK, thinking=True), "well, and ", [Thought("well, and")]),
    (Speech(THINK), "a < b <thin", [Said("a < b <thin")]),
    (Speech(THINK), "<think></think>x", [Said("x")]),
    (Speech(tools=JSON), "a <b>  c\n", [Said("a <b>  c\n")]),
    (
        Speech(tools=JSON),
        f"Well:\n\n{CALL}\n{CALL}",
        [
            Said("Well:"),
            Called(0, '{"a": "}</call>\\"", "c": [1, {}]}', "f"),
            Called(1, '{"a": "}</call>\\"", "c": [1, {}]}', "f"),
        ],
    ),
    (
        Speech(tools=JSON),
        f"{CALL}\nDone.",
        [Called(0, '{"a": "}</call>\\"", "c": [1, {}]}', "f"), Said("Done.")],
    ),
    (
        Speech(tools=JSON),
        '<call>{"arguments": {"x": 1}, "name": "g"}</call>',
        [Called(0, '{"x": 1}', "g")],
    ),
    (
        Speech(tools=JSON),
        '<call>{"name": "g", "arguments": {"x": 1',
        [Called(0, '{"x": 1', "g")],
    ),
    (Speech(tools=JSON), "a <call>no</call> b", [Said("a"), Said("<call>no</call> b")]),
    (Speech(tools=JSON), "<call>cut", [Said("<call>cut")]),
    (
        Speech(tools=WORDS),
        "<call>f:{}; g:[1]</call>",
        [Called(0, "{}", "f"), Called(1, "[1]", "g")],
    ),
    (Speech(tools=WORDS), "<call>f:{", [Said("<call>f:{")]),
    (Speech(tools=OPEN), "x[CALLS]f:{}", [Said("x"), Called(0, "{}", "f")]),
    (Speech(tools=OPEN), "[CALLS]f", [Said("[CALLS]f")]),
    (
        Speech(THINK, thinking=True, tools=WORDS),
        "<call>f:{}</call></think><call>f:{}</call>",
        [Thought("<call>f:{}</call>"), Called(0, "{}", "f")],
    ),
    (
        Speech(tools=Tools("<call>", "</call>", read_json, json=True, single=True)),
        f"a {CALL}{CALL} b",
        [Said("a"), Called(0, '{"a": "}</call>\\"", "c": [1, {}]}', "f")],
    ),
    (
        Speech(tools=Tools("<call>", "</call>", read, single=True)),
        "<call>f:{};g:{}</call>b",
        [Called(0, "{}", "f")],
    ),
]


def merged(pieces: list[Piece]) -> list[Piece]:
    """Neighbours of a kind joined, as `told` has them."""
    joined: list[Piece] = []
    for piece in pieces:
        if joined and isinstance(piece, Said) and isinstance(joined[-1], Said):
            joined[-1] = Said(joined[-1].text + piece.text)
        else:
            joined.append(piece)
    return joined


@pytest.mark.parametrize(("speech", "text", "pieces"), CASES, ids=lambda value: repr(value)[:30])
def test_in_one_piece_and_by_the_character(speech: Speech, text: str, pieces: list[Piece]):
    assert told(speech, text) == merged(pieces)
    assert told(speech, *text) == merged(pieces)


@given(st.sampled_from(CASES), st.lists(st.integers(0, 80), max_size=6))
def test_however_the_text_comes(case: tuple[Speech, str, list[Piece]], cuts: list[int]):
    speech, text, pieces = case
    places = [0, *sorted(cuts), len(text)]
    parts = [text[a:b] for a, b in pairwise(places)]
    assert told(speech, *parts) == merged(pieces)


@given(st.text('<>/thinkcal {}"\n:', max_size=60))
def test_nothing_makes_it_fail(text: str):
    for speech in (Speech(THINK, tools=JSON), Speech(THINK, thinking=True, tools=WORDS)):
        told(speech, *text)


def test_arguments_are_told_as_they_come():
    splitter = Splitter(Speech(tools=JSON))
    pieces = [splitter.push(text) for text in ['<call>{"name": "f", "argu', 'ments": {"a"', ": 1}"]]
    assert pieces == [[], [Called(0, "", "f"), Called(0, '{"a"')], [Called(0, ": 1}")]]
    assert splitter.state is State.CALLING
    assert splitter.push("}</call>") == []
    assert splitter.state is State.SAYING
