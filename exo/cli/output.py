"""The one sink of the command line: no command writes to the terminal by itself.

Results go to stdout, as text for a person or, with `--json`, as JSON. Everything that is said on
the way (progress, hints, errors) goes to stderr, so that a pipe carries results only.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, TextIO

import typer

from exo.errors import ExoError

_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}
# Everything that can move the cursor or talk to the terminal: C0 but tab and newline, DEL, C1.
_CONTROL = {code: None for code in (*range(32), *range(127, 160)) if code not in {9, 10}}


class Output:
    """Where results and talk go. `json` and `quiet` say how results are rendered."""

    def __init__(self) -> None:
        self.json = False
        self.quiet = False

    def result(
        self, data: object, human: Callable[[], str], quiet: Callable[[], str] | None = None
    ) -> None:
        """Print the result of a command: `data` as JSON, the text that `human` renders, or the
        bare value that a script wants of it, which `quiet` renders."""
        if self.json:
            self.text(json.dumps(data, indent=2, ensure_ascii=False) + "\n")
        elif self.quiet and quiet:
            self.text(f"{text}\n" if (text := quiet()) else "")
        else:
            self.text(human() + "\n")

    def item(self, data: object, human: Callable[[], str]) -> None:
        """Print one of a stream of results; JSON takes one line."""
        self.text((json.dumps(data, ensure_ascii=False) if self.json else human()) + "\n")

    def text(self, text: str) -> None:
        """Write a piece of a result to stdout, at once."""
        self._write(sys.stdout, text)

    def note(self, text: str) -> None:
        """Say something on the way, on stderr."""
        self._write(sys.stderr, self.paint(text, "dim", sys.stderr) + "\n")

    def aside(self, text: str) -> None:
        """Write a piece of what is no result to stderr, at once."""
        self._write(sys.stderr, self.paint(text, "dim", sys.stderr))

    def confirm(self, question: str) -> bool:
        """Whether the person at the terminal says yes; where there is none, nobody is asked."""
        if not sys.stdin.isatty():
            return True
        self._write(sys.stderr, f"{question} [y/N] ")
        return sys.stdin.readline().strip().lower() in {"y", "yes"}

    def error(self, error: ExoError) -> None:
        """Print what went wrong and, on the next line, what to do next."""
        label = self.paint("Error:", "red", sys.stderr)
        self._write(sys.stderr, f"{label} {error.message}\n")
        if error.hint:
            self._write(sys.stderr, f"{error.hint}\n")

    def paint(self, text: str, style: str, stream: TextIO | None = None) -> str:
        """`text` in a style, where the stream (default: stdout) shows it."""
        if not text or not uses_color(stream or sys.stdout):
            return text
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m"

    def _write(self, stream: TextIO, text: str) -> None:
        stream.write(text)
        stream.flush()


out = Output()


def _turn_json_on(wanted: bool) -> None:
    # Never off: `exo --json status` must stay JSON although `status` itself has no flag.
    out.json = out.json or wanted


def _turn_quiet_on(wanted: bool) -> None:
    out.quiet = wanted


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.", callback=_turn_json_on)]
QuietOption = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Print the bare value only.", callback=_turn_quiet_on),
]


def uses_color(stream: TextIO) -> bool:
    """Whether `stream` is a terminal that takes styles, and the user did not say NO_COLOR."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def printable(text: str) -> str:
    """`text` without characters that a terminal would obey instead of showing."""
    return text.translate(_CONTROL)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> str:
    """Rows under capital headings, never cut: a pipe must get whole ids. `empty` if no rows."""
    cells = [[printable(_cell(value)) for value in row] for row in rows]
    if not cells:
        return empty
    heads = [column.upper() for column in columns]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]

    def line(row: Sequence[str]) -> str:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        return "  ".join(padded).rstrip()

    return "\n".join([out.paint(line(heads), "bold"), *map(line, cells)])


def fields(pairs: Iterable[tuple[str, object]]) -> str:
    """One `Name  value` line per pair, aligned."""
    rows = [(name, printable(_cell(value))) for name, value in pairs]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{out.paint(name.ljust(width), 'bold')}  {value}" for name, value in rows)


def _cell(value: object) -> str:
    return "-" if value is None or value == "" else str(value)


def bytes_text(count: float | None) -> str | None:
    """1536 -> '1.5 KiB'."""
    if count is None:
        return None
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    size = float(count)
    while abs(size) >= 1024 and len(units) > 1:
        size /= 1024
        units.pop(0)
    return f"{size:.0f} B" if units[0] == "B" else f"{size:.1f} {units[0]}"


def flops_text(flops: float | None) -> str | None:
    """1.5e12 -> '1.50 TFLOP/s'."""
    return None if flops is None else f"{_decimal(flops)}FLOP/s"


def bandwidth_text(rate: float | None) -> str | None:
    """4e11 -> '400 GB/s'."""
    return None if rate is None else f"{_decimal(rate)}B/s"


def seconds_text(seconds: float | None) -> str | None:
    """0.0123 -> '12 ms', 1.5 -> '1.50 s', 125 -> '2 min 5 s'."""
    if seconds is None:
        return None
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def latency_text(seconds: float | None) -> str | None:
    """0.00031 -> '0.31 ms', 1.5 -> '1.50 s'."""
    if seconds is None or seconds >= 1:
        return seconds_text(seconds)
    return f"{digits(seconds * 1000)} ms"


def digits(value: float) -> str:
    """Three digits that count, and no exponent: 0.00412 -> '0.00412', 12.34 -> '12.3', 1234.5 ->
    '1234'."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def time_text(time: str | None) -> str | None:
    """'2026-11-23T10:00:00.123+00:00' -> '2026-11-23 10:00:00 UTC'; what is no time stays."""
    try:
        moment = datetime.fromisoformat(time or "")
    except ValueError:
        return time
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def rate_text(tokens_per_second: float | None) -> str | None:
    """12.345 -> '12.3 tok/s'."""
    return None if tokens_per_second is None else f"{tokens_per_second:.1f} tok/s"


def count_text(count: int, noun: str) -> str:
    """(1, 'node') -> '1 node', (2, 'node') -> '2 nodes'."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _decimal(value: float) -> str:
    units = ["", "k", "M", "G", "T", "P"]
    while abs(value) >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.3g} {units[0]}"
