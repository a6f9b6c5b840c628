"""npm packages, `openai` and the AI SDK, in node's own test runner."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

FOLDER = Path(__file__).parent
TESTS = sorted(path.name for path in FOLDER.glob("*.test.mjs"))


@pytest.fixture(scope="module")
def node() -> str:
    """Node, with the packages of package-lock.json. Missing, it is a failure: never a skip."""
    found = shutil.which("node")
    if not found:
        pytest.fail("these tests need Node 18 or newer: https://nodejs.org")
    packages = json.loads((FOLDER / "package.json").read_text("utf-8"))["dependencies"]
    if not all((FOLDER / "node_modules" / name).is_dir() for name in packages):
        install = ["npm", "ci", "--no-audit", "--no-fund"]
        done = subprocess.run(install, cwd=FOLDER, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.fail(f"`npm ci` in tests/clients failed:\n{done.stderr}")
    return found


@pytest.mark.parametrize("name", TESTS)
def test_npm_package(node: str, base_url: str, name: str) -> None:
    done = subprocess.run(
        [node, "--test", "--test-reporter=tap", name],
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
