"""Where an answer is in its grammar, also after drafts that were wrong, and what compiles it."""

import json
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLTokenizer, TokenizerWrapper

from exo.errors import RequestError, Unavailable
from exo.inference.grammars import compiler
from exo.inference.grammars.compiler import Grammars, Vocabulary
from exo.inference.grammars.constraint import Constraint
from exo.inference.grammars.text import grammar_of
from exo.inference.types import Format

END = 256


class Bytes:
    """A token for each byte, and one that ends the answer."""

    eos_token_id = END
    bos_token_id = None
    tokens = (*(bytes([n]) for n in range(256)), b"<end>")
    special_token_ids = (END,)

    def __call__(self, text: str | bytes) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)


@pytest.fixture(scope="module")
def grammars() -> Grammars:
    return Grammars(lambda: Vocabulary(LLTokenizer(TokenizerWrapper(Bytes())), frozenset({END})))


def allowed(constraint: Constraint) -> bytes | None:
    """The bytes that may come next; the one that ends it is shown as a full stop."""
    mask = constraint.mask()
    if mask is None:
        return None
    tokens = [n for n in range(END + 1) if mask[n // 8] >> n % 8 & 1]
    return bytes(46 if n == END else n for n in tokens)


def push(constraint: Constraint, text: bytes, *, drafted: bool = False) -> None:
    for token in text:
        constraint.push(token, drafted=drafted)


def test_a_mask_shows_what_may_come(grammars: Grammars):
    constraint = grammars.open('start: "ab" /[cd]/? ')
    assert allowed(constraint) == b"a"
    push(constraint, b"ab")
    assert allowed(constraint) == b"cd."
    push(constraint, b"c")
    assert allowed(constraint) == b"."
    constraint.push(END)
    assert allowed(constraint) is None
    assert constraint.failure is None


def test_what_a_wrong_draft_took_in_is_taken_back(grammars: Grammars):
    constraint = grammars.open('start: "abc" | "axy"')
    push(constraint, b"a")
    push(constraint, b"b", drafted=True)
    assert allowed(constraint) == b"c"
    push(constraint, b"!?", drafted=True)
    assert allowed(constraint) is None
    constraint.cut(3)
    assert allowed(constraint) == b"bx"
    assert constraint.failure is None


def test_a_token_that_was_not_allowed_is_a_failure_unless_it_was_guessed(grammars: Grammars):
    constraint = grammars.open('start: "ab"')
    push(constraint, b"x", drafted=True)
    constraint.cut(1)
    assert constraint.failure is None
    push(constraint, b"x")
    assert constraint.failure
    assert allowed(constraint) is None


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_drafts_leave_no_trace(grammars: Grammars, data: st.DataObject):
    """Guesses of any kind are pushed and cut; what may come next is what a fresh one allows."""
    schema = {"type": "array", "items": {"enum": ["ab", "abc", 12, 120, True]}}
    grammar = grammar_of(Format(kind="json", text=json.dumps(schema)))
    drafting = grammars.open(grammar)
    said = b""
    for _ in range(data.draw(st.integers(1, 8))):
        guess = bytes(data.draw(st.lists(st.sampled_from(b'[]",abc120 tru'), max_size=4)))
        for token in guess:
            drafting.push(token, drafted=True)
            drafting.mask()
        drafting.cut(len(guess))
        fresh = grammars.open(grammar)
        push(fresh, said)
        choices = allowed(fresh)
        assert allowed(drafting) == choices
        going = [token for token in choices or b"" if token != ord(".")]
        if not going:
            break
        token = data.draw(st.sampled_from(going))
        said += bytes([token])
        drafting.push(token)
    assert drafting.failure is None


def test_answers_of_one_grammar_do_not_meet(grammars: Grammars):
    one, other = grammars.open('start: "ab"'), grammars.open('start: "ab"')
    push(one, b"a")
    assert (allowed(one), allowed(other)) == (b"b", b"a")


@pytest.mark.parametrize(
    ("form", "says"),
    [
        (Format(kind="choice", text='["yes", "no"]'), b"yes"),
        (Format(kind="choice", text=json.dumps(['a"b\\c\n', "x"])), b'a"b\\c\n'),
        (Format(kind="regex", text=r"\d/[ab]\/x"), b"7/b/x"),
        (Format(kind="regex", text="a\nb"), b"a\nb"),
        (Format(kind="lark", text='start: "x" y\ny: /[0-9]/'), b"x7"),
        (Format(kind="json", text='{"type": "object"}'), b'{"a": [1, null],\n  "b": {}}'),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_every_kind_of_form(grammars: Grammars, form: Format, says: bytes):
    grammar = grammar_of(form)
    grammars.check(grammar, "here")
    constraint = grammars.open(grammar)
    for token in says:
        assert token in (allowed(constraint) or b"")
        constraint.push(token)
    assert b"." in (allowed(constraint) or b"")


def test_spaces_do_not_go_on_for_ever(grammars: Grammars):
    constraint = grammars.open(grammar_of(Format(kind="json", text='{"type": "object"}')))
    push(constraint, b"{\n" + b" " * 40)
    assert b" " not in (allowed(constraint) or b" ")
    assert constraint.failure is None


@pytest.mark.parametrize(
    "grammar",
    [
        "start: (",
        "start: missing",
        "start: x\nx: x",
        "start: /[/",
        'start: %json {"type": "nonsense"}',
        'start: %json {"uniqueItems": true}',
        'start: %json {"$ref": "http://127.0.0.1:1/schema"}',
        "start: " + "(" * 5000 + '"a"' + ")" * 5000,
    ],
    ids=lambda text: text[:40],
)
def test_what_is_no_grammar_is_refused(grammars: Grammars, grammar: str):
    with pytest.raises(RequestError) as caught:
        grammars.check(grammar, "here")
    assert caught.value.param == "here"


def test_one_that_takes_long_is_refused_and_then_others_wait(
    grammars: Grammars, monkeypatch: pytest.MonkeyPatch
):
    go = threading.Event()
    made = compiler.LLMatcher

    def slow(*args: object, **fields: object) -> object:
        go.wait()
        return made(*args, **fields)  # type: ignore[arg-type]

    monkeypatch.setattr(compiler, "LLMatcher", slow)
    monkeypatch.setattr(compiler, "COMPILE_SECONDS", 0.01)
    for text in ('start: "1"', 'start: "2"'):
        with pytest.raises(RequestError, match="too long"):
            grammars.check(text, "here")
    with pytest.raises(Unavailable):
        grammars.check('start: "3"', "here")
    go.set()
    monkeypatch.setattr(compiler, "COMPILE_SECONDS", 60)
    grammars.check('start: "1"', "here")


def test_a_vocabulary_that_cannot_be_constrained_is_refused_each_time(tmp_path: Path):
    def none() -> Vocabulary:
        raise RequestError("This one cannot.")

    grammars = Grammars(none)
    for _ in range(2):
        with pytest.raises(RequestError, match="This one"):
            grammars.check('start: "a"', "here")
