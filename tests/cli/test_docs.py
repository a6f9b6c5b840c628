"""docs/cli.md is what `--help` says, at every width."""

import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "docs_cli.py"
PAGE = TOOL.parents[1] / "docs" / "cli.md"


@pytest.mark.parametrize("columns", ["40", "200"])
def test_the_page_is_what_the_help_says(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)

    done = subprocess.run([sys.executable, TOOL, "--check"], capture_output=True, check=False)

    assert done.returncode == 0, done.stderr.decode()


def test_no_help_text_is_cut() -> None:
    assert "..." not in PAGE.read_text().replace("[ARGS]...", "")
