"""`exo logs`: what the daemon of this machine wrote."""

import os
from pathlib import Path
from typing import Annotated

import typer

from exo.cli import local
from exo.cli.client import START_HINT
from exo.cli.output import JsonOption, out
from exo.errors import DaemonError, HomeError, RequestError

BLOCK = 64 * 1024


def logs(
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="Lines to show.")] = 100,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on with new lines as they come.")
    ] = False,
    _json: JsonOption = False,
) -> None:
    """Show the log of this device's daemon."""
    path = local.find_paths().log
    if not path.is_file():
        raise DaemonError(f"There is no log at {path} yet.", hint=START_HINT)
    if not follow:
        found = last_lines(path, lines)
        out.result({"path": str(path), "lines": found}, lambda: "\n".join(found))
    elif out.json:
        raise RequestError("--follow shows the log as it is: it cannot be combined with --json.")
    else:
        # tail wakes on the file's changes and follows it through rotation.
        os.execvp("tail", ["tail", "-n", str(lines), "-F", str(path)])  # noqa: S606  no shell


def last_lines(path: Path, count: int) -> list[str]:
    """The last `count` lines of a file, read from its end.

    Raises:
        HomeError: the file cannot be read.
    """
    data = b""
    try:
        with path.open("rb") as file:
            start = file.seek(0, os.SEEK_END)
            while start > 0 and data.count(b"\n") <= count:
                size = min(BLOCK, start)
                start -= size
                file.seek(start)
                data = file.read(size) + data
    except OSError as error:
        raise HomeError(f"{path} cannot be read: {error.strerror}.") from error
    text = data.decode("utf-8", errors="replace").removesuffix("\n")
    return text.split("\n")[-count:] if text and count else []
