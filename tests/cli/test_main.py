"""The command as a whole: help, version, usage, pipes and speed."""

import subprocess
import sys

import pytest

from exo import __version__

from .conftest import Exo
from .fake_api import FakeApi


def test_the_version(exo: Exo) -> None:
    assert exo("--version").out == f"exo {__version__}\n"


def test_help_lists_the_commands(exo: Exo) -> None:
    result = exo("--help")

    assert result.code == 0
    for name in ("start", "status", "run", "instance", "node", "topology", "cluster", "dump"):
        assert f"  {name} " in result.out


def test_a_wrong_word_is_usage(exo: Exo) -> None:
    result = exo("instance", "lsit")

    assert result.code == 2
    assert "Did you mean 'list'?" in result.err


@pytest.mark.parametrize("words", [["--json", "model", "list"], ["model", "list", "--json"]])
def test_json_is_said_before_or_after_the_command(exo: Exo, api: FakeApi, words: list[str]) -> None:
    assert exo(*words).json() == {"object": "list", "data": api.models}
    assert exo("model", "list").out.startswith("MODEL")


def test_an_error_of_the_api_is_one_line_and_its_exit_code(exo: Exo, api: FakeApi) -> None:
    message = "exo has no model 'x'. Did you mean exo-demo?"
    api.failure = (404, {"error": {"message": message, "code": "model_not_found"}})

    result = exo("model", "list", "--json")

    assert (result.code, result.out, result.err) == (1, "", f"Error: {message}\n")


def test_a_bug_shows_where(exo: Exo, api: FakeApi) -> None:
    api.models = [{"id": "no size", "tasks": []}]

    result = exo("model", "list")

    assert result.code == 1
    assert "KeyError: 'storage_size'" in result.err
    assert "This is a bug in exo." in result.err


def test_ctrl_c_is_130(exo: Exo, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("exo.cli.client.connect", interrupted)

    result = exo("status")

    assert (result.code, result.err) == (130, "")


def test_a_pipe_that_closes_is_quiet(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    # An unbuffered stdout drops what a broken write leaves over, and so never sees the error.
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    api.models = api.models * 10_000
    command = [sys.executable, "-m", "exo", "model", "list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        child.stdout.read(10)
        child.stdout.close()

        assert child.stderr.read() == b""

    assert child.returncode == 1


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from exo.cli.main import main; main(['--help']);"
        "print([m for m in ('httpx', 'rich', 'pydantic', 'psutil', 'mlx') if m in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.endswith("[]\n")


def test_completion_knows_the_commands(exo: Exo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_EXO_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "exo inst")
    monkeypatch.setenv("COMP_CWORD", "1")

    assert exo().out.split() == ["instance"]
