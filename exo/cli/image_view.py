"""What is seen while pictures are drawn: a bar of the steps, and the pictures themselves where the
terminal can show them."""

import os
import re
import shutil
import sys
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from exo.cli.output import out, uses_color
from exo.cli.terminal_pictures import Room, Show, detect, render

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

ENVIRONMENT = "EXO_SHOW"
_STEP = re.compile(r"step (\d+)/(\d+) image (\d+)")
_ROWS, _COLUMNS = 18, 72


class View(AbstractContextManager["View"]):
    """The bar on stderr and the pictures on stdout, each only if that is a terminal."""

    def __init__(self, show: Show, title: str, n: int) -> None:
        self._show = _resolved(show)
        self._n = n
        self._rows = 0
        self._steps: dict[int, int] = {}
        self._taking_form: int | None = None
        self._bar = _Bar(title) if uses_color(sys.stderr) else None

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    @property
    def shows(self) -> bool:
        """Whether pictures are shown, so that previews are worth asking for."""
        return self._show is not Show.none

    def on_comment(self, text: str) -> None:
        """Take in a comment of the stream."""
        found = _STEP.fullmatch(text)
        if found and self._bar:
            step, steps, index = map(int, found.groups())
            self._steps[index] = step
            done, total = sum(self._steps.values()), self._n * steps
            self._bar.update(done, total, f"step {step}/{steps}")

    def picture(self, index: int, data: bytes, *, final: bool) -> None:
        """Show a picture in the place of its previews. Of several that are drawn at once, one is
        seen taking form."""
        if self._taking_form is None:
            self._taking_form = index
        if not self.shows or (index != self._taking_form and not final):
            return
        if final:
            self._taking_form = None
        if self._bar:
            self._bar.stop()
        text, rows = render(data, self._show, _room())
        # Room is made first, and the cursor left where it was: what follows takes the same place.
        back = f"\x1b[{self._rows}A\r\x1b[J" if self._rows else ""
        out.text(f"{back}{chr(10) * rows}\x1b[{rows}A\x1b7{text}\x1b8\x1b[{rows}B\r")
        self._rows = 0 if final else rows
        if self._bar and not final:
            self._bar.start()


class _Bar:
    """A bar of all steps. It leaves no trace."""

    def __init__(self, title: str) -> None:
        from rich import progress  # noqa: PLC0415  a tenth of a second, for terminals only
        from rich.console import Console  # noqa: PLC0415

        self._progress: Progress = progress.Progress(
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.TextColumn("{task.fields[count]}", markup=False),
            progress.TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        # Without a total, rich shows a pulse: the request waits for its turn.
        self._task: TaskID = self._progress.add_task(title, total=None, count="")
        self.start()

    def start(self) -> None:
        self._progress.start()

    def stop(self) -> None:
        self._progress.stop()

    def update(self, done: int, total: int, count: str) -> None:
        self._progress.update(self._task, completed=done, total=total, count=count)


def _resolved(show: Show) -> Show:
    """What is chosen by the flag, else by the environment, else what the terminal is known for;
    nothing where stdout is none, or is only read by a program."""
    if out.json or out.quiet:
        return Show.none
    if show is Show.auto:
        given = os.environ.get(ENVIRONMENT, "")
        show = Show(given) if given in set(Show) else Show.auto
    if show is not Show.auto:
        return show if sys.stdout.isatty() else Show.none
    return detect(os.environ) if uses_color(sys.stdout) else Show.none


def _room() -> Room:
    size = shutil.get_terminal_size()
    return Room(
        columns=max(1, min(_COLUMNS, size.columns - 1)),
        rows=max(1, min(_ROWS, size.lines - 3)),
        cell=_cell(),
        true_color=os.environ.get("COLORTERM") in {"truecolor", "24bit"},
    )


def _cell() -> tuple[int, int]:
    """Width and height of a character in pixels, where the terminal tells."""
    import fcntl  # noqa: PLC0415  what only a terminal needs
    import struct  # noqa: PLC0415
    import termios  # noqa: PLC0415

    try:
        packed = fcntl.ioctl(sys.stdout.fileno(), termios.TIOCGWINSZ, b"\0" * 8)
    except OSError:
        return Room(1, 1).cell
    rows, columns, width, height = struct.unpack("HHHH", packed)
    if not (rows and columns and width and height):
        return Room(1, 1).cell
    return max(1, width // columns), max(1, height // rows)
