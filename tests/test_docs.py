"""The generated pages are what the code says, and the code keeps to the project's measures."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "exo").rglob("*.py"))
LINES, FUNCTION_LINES = 400, 60


@pytest.mark.parametrize("columns", ["40", "200"])
def test_the_generated_pages_have_not_drifted(columns: str, monkeypatch: pytest.MonkeyPatch):
    """At every width of the terminal."""
    monkeypatch.setenv("COLUMNS", columns)
    command = [sys.executable, ROOT / "tools" / "docs.py", "--check"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_no_help_text_is_cut():
    page = (ROOT / "docs" / "cli.md").read_text()
    assert "..." not in page.replace("[ARGS]...", "")


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_and_functions_are_small(module: Path):
    text = module.read_text()
    assert len(text.splitlines()) <= LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < FUNCTION_LINES, node.name


def test_the_rooms_import_lower_ones_only():
    lint = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run(
        [lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_links_between_pages_lead_somewhere():
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for link in page.read_text().split("](")[1:]:
            target = link.split(")", 1)[0].split("#", 1)[0]
            if target and not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"
