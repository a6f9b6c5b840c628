from hypothesis import example, given
from hypothesis import strategies as st

from exo.inference.text import StopBuffer


def feed(pieces: list[str], stops: list[str]) -> tuple[str, bool]:
    buffer = StopBuffer(stops)
    text = "".join(buffer.push(piece) for piece in pieces)
    return text + ("" if buffer.stopped else buffer.flush()), buffer.stopped


def cut(text: str, stops: list[str]) -> tuple[str, bool]:
    ends = [text.find(stop) for stop in stops if stop in text]
    return (text[: min(ends)], True) if ends else (text, False)


def test_a_stop_string_over_three_pieces_never_leaks():
    buffer = StopBuffer(["STOP"])
    assert [buffer.push(piece) for piece in ("one S", "TO", "P two")] == ["one ", "", ""]
    assert buffer.stopped


def test_text_that_only_began_like_a_stop_string_is_sent_after_all():
    assert feed(["a ST", "ART"], ["STOP"]) == ("a START", False)


ab = st.text("ab", max_size=6)


@given(st.lists(ab, max_size=8), st.lists(ab.filter(bool), max_size=3))
@example(["ab", "ab", "a"], ["aba", "bb"])
def test_pieces_give_the_same_as_the_whole(pieces: list[str], stops: list[str]):
    """In pieces, the first stop string to be complete wins; in the whole, the first to begin."""
    text, stopped = feed(pieces, stops)
    whole, whole_stopped = cut("".join(pieces), stops)
    assert stopped == whole_stopped
    assert text == whole or (stopped and "".join(pieces).startswith(text))


@given(st.lists(ab, max_size=8), ab.filter(bool))
def test_one_stop_string_cuts_exactly(pieces: list[str], stop: str):
    assert feed(pieces, [stop]) == cut("".join(pieces), [stop])


@given(st.lists(ab, max_size=8), st.lists(ab.filter(bool), max_size=3))
def test_what_was_sent_is_never_taken_back(pieces: list[str], stops: list[str]):
    sent, _ = feed(pieces, stops)
    assert "".join(pieces).startswith(sent)
    assert not any(stop in sent for stop in stops)
