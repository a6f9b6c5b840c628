"""The `openai` npm package, in node's own test runner."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

FOLDER = Path(__file__).parent


@pytest.fixture(scope="module")
def node() -> str:
    """Node, with the packages of package-lock.json. Missing, it is a failure: never a skip."""
    found = shutil.which("node")
    if not found:
        pytest.fail("these tests need Node 18 or newer: https://nodejs.org")
    if not (FOLDER / "node_modules" / "openai").is_dir():
        install = ["npm", "ci", "--no-audit", "--no-fund"]
        done = subprocess.run(install, cwd=FOLDER, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.fail(f"`npm ci` in tests/clients failed:\n{done.stderr}")
    return found


def test_openai_node(node: str, base_url: str) -> None:
    done = subprocess.run(
        [node, "--test", "--test-reporter=tap"],
        cwd=FOLDER,
        env={**os.environ, "EXO_BASE_URL": base_url, "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\n# skipped 0\n" in done.stdout
    assert "\n# pass 0\n" not in done.stdout


def test_lock_file_names_no_registry() -> None:
    """It must install from whichever registry a machine uses."""
    assert "resolved" not in (FOLDER / "package-lock.json").read_text("utf-8")
