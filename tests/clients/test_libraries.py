"""Python libraries on top of OpenAI's API, in an environment of their own: `libraries/`."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import pytest

# Imports of these take long, and the first of an environment longer.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

FOLDER = Path(__file__).parent / "libraries"
UV = Path(__file__).parents[2] / "tools" / "uv.sh"
LIBRARIES = sorted(path.stem.removeprefix("test_") for path in FOLDER.glob("test_*.py"))
# None of them is to call home: nobody answers there, and some wait for that.
QUIET = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LANGSMITH_TRACING": "false",
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
}

# What was run of each library, and what it failed with, if it did.
Outcomes = Mapping[str, Mapping[str, str | None]]


@pytest.fixture(scope="module")
def python() -> Path:
    """Its Python, with the packages of libraries/uv.lock."""
    command = [UV, "sync", "--frozen", "--quiet", "--project", FOLDER, "--python", sys.executable]
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("UV_PROJECT", "VIRTUAL_"))}
    done = subprocess.run(command, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return FOLDER / ".venv" / "bin" / "python"


@pytest.fixture(scope="module")
def outcomes(python: Path, base_url: str, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """All are run in one process: most of the time goes into imports that they share."""
    report = tmp_path_factory.mktemp("libraries") / "report.xml"
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "OPENAI_"))}
    done = subprocess.run(
        [python, "-m", "pytest", "--quiet", f"--junit-xml={report}"],
        cwd=FOLDER,
        env={**kept, **QUIET, "EXO_BASE_URL": base_url},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert report.is_file(), done.stdout + done.stderr
    found: dict[str, dict[str, str | None]] = {}
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314  written by pytest
        library = case.get("classname", "").removeprefix("test_")
        trouble = next(iter(case), None)  # A failure, an error, or that it was skipped.
        text = None if trouble is None else f"{trouble.tag}: {trouble.text}"
        found.setdefault(library, {})[case.get("name", "")] = text
    return found


@pytest.mark.parametrize("library", LIBRARIES)
def test_it_does_its_main_job(library: str, outcomes: Outcomes) -> None:
    cases = outcomes.get(library, {})
    assert cases, f"nothing was run of {library}, only of {list(outcomes)}"
    failed = {name: text for name, text in cases.items() if text is not None}
    assert not failed, "\n\n".join(f"{name}: {text}" for name, text in failed.items())
