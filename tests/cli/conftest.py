"""The command line under test: `main()` itself, in the streams of Typer's runner."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from exo.cli.main import main
from exo.config import Paths, find_paths

from .fake_api import NODE_ID, FakeApi


@dataclass
class Result:
    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


Exo = Callable[..., Result]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own for each test, and nothing of the developer's environment."""
    for name in os.environ:
        if name.startswith("EXO_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("EXO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.fixture
def paths(home: Path) -> Paths:
    return find_paths()


@pytest.fixture
def exo() -> Exo:
    """Run one command line in this process; `tty` makes stdin and stderr terminals."""

    def call(*words: str, stdin: str = "", tty: bool = False) -> Result:
        with CliRunner().isolation(stdin) as (out, err, _):
            if tty:
                sys.stdin.isatty = sys.stderr.isatty = lambda: True
            code = main(words)
            sys.stdout.flush()
            sys.stderr.flush()
            return Result(code, out.getvalue().decode(), err.getvalue().decode())

    return call


@pytest.fixture
def api(paths: Paths) -> Iterator[FakeApi]:
    """A fake API that daemon.json points to."""
    with FakeApi() as fake:
        paths.prepare()
        record(paths, fake.url)
        yield fake


def record(
    paths: Paths, url: str, pid: int = 4242, started_at: str = "2026-11-23T10:00:00Z"
) -> None:
    daemon = {
        "format": 1,
        "pid": pid,
        "api": url,
        "node_id": NODE_ID,
        "started_at": started_at,
        "version": "0.1.0",
    }
    paths.daemon.write_text(json.dumps(daemon))


@pytest.fixture
def process_exo(monkeypatch: pytest.MonkeyPatch) -> Exo:
    """Run one command line as a process, where `exo.daemon` is the stub."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent / "stub"))

    def call(*words: str, stdin: str = "") -> Result:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "exo", *words],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    return call
