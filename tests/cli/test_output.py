"""The sink: how values look, and what a terminal gets."""

import io

import pytest

from exo.cli.output import (
    Output,
    bandwidth_text,
    bytes_text,
    count_text,
    fields,
    flops_text,
    printable,
    rate_text,
    seconds_text,
    table,
)
from exo.errors import PortInUse


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (bytes_text(0), "0 B"),
        (bytes_text(1023), "1023 B"),
        (bytes_text(1536), "1.5 KiB"),
        (bytes_text(64 * 1024**3), "64.0 GiB"),
        (bytes_text(5000 * 1024**4), "5000.0 TiB"),
        (bytes_text(None), None),
        (flops_text(1.5e12), "1.5 TFLOP/s"),
        (flops_text(999), "999 FLOP/s"),
        (bandwidth_text(4e11), "400 GB/s"),
        (seconds_text(0.0123), "12 ms"),
        (seconds_text(1.5), "1.50 s"),
        (seconds_text(125), "2 min 5 s"),
        (rate_text(12.345), "12.3 tok/s"),
        (count_text(1, "node"), "1 node"),
        (count_text(0, "node"), "0 nodes"),
    ],
)
def test_values_for_a_person(text: str | None, expected: str | None) -> None:
    assert text == expected


def test_a_table_is_aligned_and_never_cut() -> None:
    rows = [["a", 1, None], ["b" * 200, 22, "x"]]

    lines = table(["name", "n", "what"], rows, empty="nothing").split("\n")

    assert lines[0] == "NAME" + " " * 196 + "  N   WHAT"
    assert lines[1] == "a" + " " * 199 + "  1   -"
    assert lines[2] == "b" * 200 + "  22  x"


def test_an_empty_table_says_so() -> None:
    assert table(["name"], [], empty="nothing") == "nothing"


def test_fields_are_aligned() -> None:
    assert fields([("A", 1), ("Long", None)]) == "A     1\nLong  -"


def test_what_others_wrote_cannot_drive_the_terminal() -> None:
    assert printable("a\x1b[2Jb\x9b1m\r\nc\td") == "a[2Jb1m\nc\td"
    assert "\x1b" not in table(["name"], [["\x1b]0;title\x07"]], empty="")


def test_an_error_is_its_message_and_its_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = io.StringIO()
    monkeypatch.setattr("sys.stderr", stderr)

    Output().error(PortInUse("Port 1 is taken.", hint="Take another."))

    assert stderr.getvalue() == "Error: Port 1 is taken.\nTake another.\n"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "\x1b[1mhi\x1b[0m"),
        ({"NO_COLOR": "1"}, "hi"),
        ({"TERM": "dumb"}, "hi"),
    ],
)
def test_styles_are_for_terminals_that_want_them(
    environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert Output().paint("hi", "bold", Terminal()) == expected
    assert Output().paint("hi", "bold", io.StringIO()) == "hi"
