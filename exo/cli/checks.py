"""What `exo doctor` reports: one check after the other, as data."""

import shutil
import subprocess
from dataclasses import dataclass
from typing import Literal

from exo.cli.output import out, printable

# Seconds that a tool of the system gets to answer.
TOOL_TIMEOUT = 5.0

Verdict = Literal["ok", "warn", "fail", "skip"]

_MARKS = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "red"), "skip": ("-", "dim")}


@dataclass(frozen=True)
class Check:
    """One line of the report. Only `fail` keeps exo from working; `skip` could not be checked."""

    name: str
    verdict: Verdict
    detail: str
    hint: str | None = None


def line(check: Check) -> str:
    """One check for a person; the hint on a line of its own."""
    mark, style = _MARKS[check.verdict]
    text = f"{out.paint(mark, style)} {check.name}: {printable(check.detail)}"
    return f"{text}\n  {check.hint}" if check.hint else text


def ask_system(*command: str) -> str | None:
    """What a tool of the system says; None where it is missing, fails or does not answer."""
    if not shutil.which(command[0]):
        return None
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TOOL_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
