"""Harmony's channels and Llama 3's bare calls, taken apart however the text comes in pieces."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo.inference.speech.speech import (
    Call,
    Called,
    NotACallError,
    Piece,
    Said,
    Speech,
    State,
    Thought,
    Tools,
)
from exo.inference.speech.splitters import open_splitter
from tests.inference.speech.pieces import told


def none(text: str) -> Sequence[Call]:
    raise NotACallError(text)


def tools(**fields: Any) -> Tools:
    return Tools("", "", none, names=frozenset({"f", "g"}), **fields)


HARMONY = Speech(style="channels", tools=tools())
BARE = Speech(style="bare", tools=tools())
ONCE = Speech(style="bare", tools=tools(single=True))
TAG = "<|python_tag|>"


def thinks(text: str) -> str:
    return f"<|channel|>analysis<|message|>{text}<|end|><|start|>assistant"


CHANNELS: list[tuple[Speech, str, list[Piece]]] = [
    (
        HARMONY,
        thinks("Well, <b>.") + "<|channel|>final<|message|>Hi\n there <|return|>",
        [Thought("Well, <b>."), Said("Hi\n there ")],
    ),
    (
        HARMONY,
        thinks("Call it.")
        + '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": "<|"}<|call|>',
        [Thought("Call it."), Called(0, '{"a": "<|"}', "f")],
    ),
    # The recipient may stand behind the role, as templates write it.
    (
        HARMONY,
        " to=functions.g<|channel|>commentary json<|message|>{}<|call|>",
        [Called(0, "{}", "g")],
    ),
    (
        HARMONY,
        thinks("a") + "<|channel|>commentary<|message|>I shall look.<|end|><|start|>assistant"
        "<|channel|>commentary to=functions.f<|message|>{}<|call|>",
        [Thought("a"), Said("I shall look."), Called(0, "{}", "f")],
    ),
    # Without the mark of a call, a call is an answer's end all the same.
    (
        HARMONY,
        "<|channel|>commentary to=functions.f<|message|>{}<|end|><|start|>assistant<|message|>more",
        [Called(0, "{}", "f")],
    ),
    # What is cut off.
    (HARMONY, "<|channel|>analysis<|message|>Well, <|en", [Thought("Well, <|en")]),
    (HARMONY, "<|channel|>final<|message|>a <", [Said("a <")]),
    (HARMONY, "<|channel|>commentary to=functions.f<|message|>{", [Called(0, "{", "f")]),
    (HARMONY, thinks("a") + "<|channel|>fin", [Thought("a")]),
    # What is no function is as its channel is.
    (
        HARMONY,
        "<|channel|>analysis to=python code<|message|>1+1<|call|>",
        [Thought("1+1")],
    ),
    (
        Speech(style="channels"),
        "<|channel|>commentary to=functions.f<|message|>{}<|call|>x",
        [Said("{}")],
    ),
    # A model that has not learned of channels.
    (HARMONY, "Just text, <|end|>", [Said("Just text, ")]),
    (HARMONY, "<| a", [Said("<| a")]),
    # Where the prompt has begun.
    (
        Speech(style="channels", begun="<|start|>assistant<|channel|>final<|message|>So far"),
        " and on<|return|>",
        [Said(" and on")],
    ),
    (
        Speech(style="channels", begun="<|start|>assistant<|channel|>analysis"),
        "<|message|>thought<|end|><|start|>assistant<|channel|>final<|message|>x",
        [Thought("thought"), Said("x")],
    ),
    (
        Speech(style="channels", begun="<|start|>assistant"),
        "<|channel|>final<|message|>x<|return|>",
        [Said("x")],
    ),
]
CALL = '{"name": "f", "parameters": {"a": "}{\\"", "b": [1, {}]}}'
CALLED = Called(0, '{"a": "}{\\"", "b": [1, {}]}', "f")
OBJECTS: list[tuple[Speech, str, list[Piece]]] = [
    (BARE, CALL, [CALLED]),
    (BARE, f"\n {TAG} {CALL}\n", [CALLED]),
    (BARE, f'{CALL}; {{"name": "g", "parameters": {{}}}}', [CALLED, Called(1, "{}", "g")]),
    (BARE, f"{CALL}\n{CALL}", [CALLED, Called(1, CALLED.arguments, "f")]),
    (BARE, f"{CALL}; Done.", [CALLED, Said("Done.")]),
    (ONCE, f"{CALL}; {CALL} Done.", [CALLED]),
    (BARE, '{ "name" :"g" , "arguments": {"x": 1}, "more": "}" }', [Called(0, '{"x": 1}', "g")]),
    (
        BARE,
        '{"type": "function", "name": "f", "parameters": {"a": "\\u00fc"}}',
        [Called(0, '{"a": "ü"}', "f")],
    ),
    (BARE, '{"parameters": {"x": 1}, "name": "g"}', [Called(0, '{"x": 1}', "g")]),
    # Cut off.
    (BARE, '{"name": "f", "parameters": {"a": 1', [Called(0, '{"a": 1', "f")]),
    (BARE, '{"name": "f", "par', [Said('{"name": "f", "par')]),
    # What looks like a call and is none.
    (BARE, "  It is {so}: " + CALL, [Said("  It is {so}: " + CALL)]),
    (BARE, '{"name": "Ann", "parameters": {}}', [Said('{"name": "Ann", "parameters": {}}')]),
    (BARE, '{"names": ["f"]}', [Said('{"names": ["f"]}')]),
    (BARE, '{"name": "f", "parameters": 5} x', [Said('{"name": "f", "parameters": 5} x')]),
    (BARE, '{"type": {"name": "f"}} x', [Said('{"type": {"name": "f"}} x')]),
    (BARE, f"{TAG}search.call(query='x')", [Said(f"{TAG}search.call(query='x')")]),
    (BARE, "{", [Said("{")]),
    (BARE, " \n", [Said(" \n")]),
    # Behind the tag, also further on.
    (BARE, f"Well. {TAG}{CALL}", [Said("Well. "), CALLED]),
    (BARE, f"{TAG}a{TAG}{TAG}{CALL}", [Said(f"{TAG}a"), CALLED]),
    (BARE, f"a <|python {TAG[:-1]}", [Said(f"a <|python {TAG[:-1]}")]),
    (Speech(style="bare"), f"{TAG}{CALL}", [Said(f"{TAG}{CALL}")]),
]
CASES = [*CHANNELS, *OBJECTS]


@pytest.mark.parametrize(("speech", "text", "pieces"), CASES, ids=lambda value: repr(value)[:40])
def test_in_one_piece_and_by_the_character(speech: Speech, text: str, pieces: list[Piece]):
    assert told(speech, text) == pieces
    assert told(speech, *text) == pieces


@given(st.sampled_from(CASES), st.lists(st.integers(0, 200), max_size=6))
def test_however_the_text_comes(case: tuple[Speech, str, list[Piece]], cuts: list[int]):
    speech, text, pieces = case
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    assert told(speech, *(text[a:b] for a, b in pairwise(places))) == pieces


_MARKS = ["<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|call|>", "<|return|>", TAG]
_PARTS = [
    *_MARKS,
    "assistant",
    "analysis",
    "final",
    " to=functions.f",
    CALL,
    '{"name": "f", "parameters": {',
    '{"type": "function", ',
    "}",
    '"',
    "\\",
    "; ",
    " ",
    "x",
    "<|",
]


@given(st.lists(st.sampled_from(_PARTS), max_size=10), st.lists(st.integers(0, 200), max_size=5))
def test_whatever_comes_is_told_the_same_in_any_pieces(parts: list[str], cuts: list[int]):
    text = "".join(parts)
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[a:b] for a, b in pairwise(places)]
    for speech in (HARMONY, BARE, ONCE):
        assert told(speech, *pieces) == told(speech, text) == told(speech, *text)


def test_what_a_text_is_at_present():
    splitter = open_splitter(HARMONY)
    seen: list[State] = []
    for text in (
        "<|channel|>analysis",
        "<|message|>well",
        "<|end|><|start|>assistant",
        "<|channel|>final<|message|>",
        "x<|end|><|start|>assistant to=functions.f<|message|>",
        "{}",
    ):
        splitter.push(text)
        seen.append(splitter.state)
    between = State.BETWEEN
    assert seen == [
        between,
        State.THINKING,
        between,
        State.SAYING,
        State.CALLING,
        State.CALLING,
    ]


@pytest.mark.parametrize(
    ("speech", "begin"),
    [
        (HARMONY, "<|channel|>commentary to=functions.f<|message|>"),
        (BARE, '{"name": "f", "parameters": '),
    ],
)
def test_arguments_are_told_as_they_come(speech: Speech, begin: str):
    splitter = open_splitter(speech)
    found = [splitter.push(text) for text in [begin, '{"a"', ": 1}"]]
    name = Called(0, "", "f")
    more = [Called(0, '{"a"'), Called(0, ": 1}")]
    assert [piece for pieces in found for piece in pieces] == [name, *more]
    assert found[2] == more[1:]
