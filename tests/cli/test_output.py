"""The sink: how values look, and what a terminal gets."""

import io

import pytest

from exo.cli.output import (
    Output,
    bandwidth_text,
    bytes_text,
    count_text,
    digits,
    fields,
    flops_text,
    latency_text,
    printable,
    rate_text,
    seconds_text,
    table,
    time_text,
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
        (latency_text(0.00031), "0.31 ms"),
        (latency_text(0.25), "250 ms"),
        (latency_text(1.5), "1.50 s"),
        (latency_text(None), None),
        (digits(0.00412), "0.00412"),
        (digits(12.34), "12.3"),
        (digits(1234.5), "1234"),
        (time_text("2026-11-23T10:00:00.123+00:00"), "2026-11-23 10:00:00 UTC"),
        (time_text("2026-11-23T10:00:00+02:00"), "2026-11-23 08:00:00 UTC"),
        (time_text("soon"), "soon"),
        (time_text(None), None),
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


def test_the_three_forms_of_a_result(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output()

    def shown(quiet: str = "1") -> str:
        output.result({"n": 1}, lambda: "one", lambda: quiet)
        return capsys.readouterr().out

    assert shown() == "one\n"
    output.quiet = True
    assert (shown(), shown("")) == ("1\n", "")
    output.json = True
    assert shown() == '{\n  "n": 1\n}\n'


def test_quiet_is_for_results_that_have_such_a_form(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output()
    output.quiet = True

    output.result({}, lambda: "text")

    assert capsys.readouterr().out == "text\n"
