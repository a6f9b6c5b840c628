"""`exo logs`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from exo.cli.logs import BLOCK, last_lines
from exo.config import Paths

from .conftest import Exo


@pytest.fixture
def log(paths: Paths) -> Path:
    paths.prepare()
    paths.log.write_text("one\ntwo\nthree\n")
    return paths.log


def test_the_last_lines(exo: Exo, log: Path) -> None:
    assert exo("logs").out == "one\ntwo\nthree\n"
    assert exo("logs", "-n", "2").out == "two\nthree\n"
    assert exo("logs", "-n", "1", "--json").json() == {"path": str(log), "lines": ["three"]}


def test_no_log_yet(exo: Exo) -> None:
    result = exo("logs")

    assert result.code == 6
    assert "There is no log at " in result.err


def test_a_followed_log_is_no_json(exo: Exo, log: Path) -> None:
    assert exo("logs", "-f", "--json").code == 1


@pytest.mark.parametrize(
    ("content", "count", "expected"),
    [
        ("", 5, []),
        ("a", 5, ["a"]),
        ("a\n\nb\n", 2, ["", "b"]),
        ("a\nb\n", 0, []),
        ("x" * BLOCK + "\nend\n", 1, ["end"]),
        ("x" * BLOCK + "\nend\n", 2, ["x" * BLOCK, "end"]),
    ],
)
def test_lines_are_read_from_the_end(
    tmp_path: Path, content: str, count: int, expected: list[str]
) -> None:
    path = tmp_path / "log"
    path.write_text(content)

    assert last_lines(path, count) == expected


def test_follow_goes_on_through_rotation(log: Path) -> None:
    command = [sys.executable, "-m", "exo", "logs", "-n", "1", "-f"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
    ) as child:
        assert read_line(child) == b"three\n"
        with log.open("a") as file:
            file.write("four\n")
        assert read_line(child) == b"four\n"
        log.rename(log.with_suffix(".1"))
        log.write_text("five\n")
        assert read_line(child) == b"five\n"
        child.terminate()


def read_line(child: subprocess.Popen[bytes]) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        line += os.read(child.stdout.fileno(), 1)
    return line
