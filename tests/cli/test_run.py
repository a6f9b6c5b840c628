"""`exo run`: one answer, or a chat."""

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from exo.config import Paths

from .conftest import Exo
from .fake_api import MODEL, FakeApi, instance

OPTIONS = {"stream": True, "stream_options": {"include_usage": True}}


@pytest.fixture
def ready(api: FakeApi) -> FakeApi:
    api.instances["i1"] = instance("i1")
    return api


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def test_the_answer_is_stdout_and_nothing_else(exo: Exo, ready: FakeApi) -> None:
    result = exo("run", "exo-demo", "Hi?")

    assert (result.code, result.out, result.err) == (0, "Hello.\n", "")
    assert ready.chats == [{"model": "exo-demo", "messages": [user("Hi?")], **OPTIONS}]
    assert ready.posted == []


def test_json_is_one_object(exo: Exo, ready: FakeApi) -> None:
    assert exo("run", "exo-demo", "Hi?", "--json").json() == {
        "model": "exo-demo",
        "answer": "Hello.",
        "finish_reason": "stop",
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
    }


def test_thoughts_are_for_a_person_at_the_terminal(exo: Exo, ready: FakeApi) -> None:
    ready.thoughts = ["Well, ", "hello."]
    result = exo("run", "exo-demo", "Hi?")
    assert (result.out, result.err) == ("Hello.\n", "")
    result = exo("run", "exo-demo", "Hi?", tty=True)
    assert (result.out, result.err) == ("Hello.\n", "Well, hello.\n\n")
    found = exo("run", "exo-demo", "Hi?", "--json").json()
    assert (found["answer"], found["reasoning"]) == ("Hello.", "Well, hello.")


def test_options_are_fields_of_the_request(exo: Exo, ready: FakeApi) -> None:
    words = ["--system", "Be short.", "--max-tokens", "9", "--temperature", "0", "--seed", "3"]

    exo("run", "exo-demo", "Hi?", *words)

    system = {"role": "system", "content": "Be short."}
    options = {"max_tokens": 9, "temperature": 0, "seed": 3}
    assert ready.chats == [
        {"model": "exo-demo", "messages": [system, user("Hi?")], **OPTIONS, **options}
    ]


def test_a_piped_prompt_is_read_to_its_end(exo: Exo, ready: FakeApi) -> None:
    assert exo("run", "exo-demo", stdin="Line 1\nLine 2\n").out == "Hello.\n"
    assert ready.chats[0]["messages"] == [user("Line 1\nLine 2\n")]


def test_an_empty_prompt_asks_nothing(exo: Exo, ready: FakeApi) -> None:
    result = exo("run", "exo-demo", stdin="\n")

    assert (result.code, result.err) == (1, "Error: The prompt is empty.\n")
    assert ready.calls == []


def test_json_needs_a_prompt(exo: Exo, ready: FakeApi) -> None:
    result = exo("run", "exo-demo", "--json", tty=True)

    assert result.code == 1
    assert "--json answers one prompt." in result.err


def test_a_model_is_placed_with_progress(exo: Exo, api: FakeApi) -> None:
    result = exo("run", "exo-demo", "Hi?")

    assert result.out == "Hello.\n"
    assert "exo-demo: warming\n" in result.err
    assert api.posted == [{"instance": {"model_id": "exo-demo"}}]


@pytest.mark.parametrize("name", ["demo", "exo-demo", "Exo demo", "/models/exo-demo"])
def test_every_name_of_a_model_finds_its_instance(exo: Exo, ready: FakeApi, name: str) -> None:
    assert exo("run", name, "Hi?").code == 0
    assert ready.posted == []


@pytest.mark.parametrize(("task", "told"), [("image", "images"), ("embedding", "vectors")])
def test_a_model_for_something_else_is_not_loaded(
    exo: Exo, api: FakeApi, task: str, told: str
) -> None:
    api.models = [{**MODEL, "tasks": [task]}]

    result = exo("run", "exo-demo", "Hi?")

    assert result.code == 1
    assert f"makes {told}" in result.err
    assert api.posted == []


def test_a_failed_instance_is_not_used(exo: Exo, api: FakeApi) -> None:
    api.instances["i1"] = instance("i1", "failed")

    assert exo("run", "exo-demo", "Hi?").out == "Hello.\n"
    assert len(api.posted) == 1


def test_a_cut_answer_says_so(exo: Exo, ready: FakeApi) -> None:
    ready.finish_reason = "length"

    result = exo("run", "exo-demo", "Hi?")

    assert result.out == "Hello.\n"
    assert "--max-tokens" in result.err


def test_an_error_in_the_stream_is_the_exit_code(exo: Exo, ready: FakeApi) -> None:
    ready.stream_error = {"error": {"message": "The runner died.", "code": "runner_died"}}

    result = exo("run", "exo-demo", "Hi?")

    assert (result.code, result.out) == (1, "Hello.")
    assert result.err == "Error: The runner died.\n"


def test_an_answer_without_an_end_is_an_error(exo: Exo, ready: FakeApi) -> None:
    ready.finish_reason = None

    result = exo("run", "exo-demo", "Hi?")

    assert result.code == 6
    assert "The answer ended before it was complete." in result.err


def test_a_chat_has_history_until_it_is_cleared(exo: Exo, ready: FakeApi) -> None:
    result = exo("run", "exo-demo", stdin="One\n\nTwo\n/clear\nThree\n/exit\nFour\n", tty=True)

    assert result.code == 0
    assert result.out == "Hello.\n" * 3
    answer = {"role": "assistant", "content": "Hello."}
    assert [chat["messages"] for chat in ready.chats] == [
        [user("One")],
        [user("One"), answer, user("Two")],
        [user("Three")],
    ]


def test_a_refused_question_does_not_end_the_chat(exo: Exo, ready: FakeApi) -> None:
    ready.answer = []
    ready.stream_error = {"error": {"message": "Too long.", "code": "context_length_exceeded"}}

    result = exo("run", "exo-demo", stdin="One\nTwo\n", tty=True)

    assert result.code == 0
    assert result.err.count("Error: Too long.\n") == 2
    assert [chat["messages"] for chat in ready.chats] == [[user("One")], [user("Two")]]


def test_ctrl_c_stops_the_answer_and_not_the_chat(ready: FakeApi, tmp_path: Path) -> None:
    ready.answer, ready.hangs_after = ["Hel", "lo."], "Hel"
    control, terminal = pty.openpty()
    command = [sys.executable, "-m", "exo", "run", "exo-demo"]
    with subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal) as child:
        os.close(terminal)
        read_until(control, b"> ")
        os.write(control, b"One\n")
        read_until(control, b"Hel")
        child.send_signal(signal.SIGINT)
        read_until(control, b"> ")
        ready.hangs_after = None
        os.write(control, b"Two\n")
        read_until(control, b"Hello.\r\n")
        os.write(control, b"/exit\n")
        read_to_end(control)
    os.close(control)

    assert child.returncode == 0
    partial = {"role": "assistant", "content": "Hel"}
    assert ready.chats[1]["messages"] == [user("One"), partial, user("Two")]


def test_run_starts_a_daemon_if_none_runs(process_exo: Exo, paths: Paths) -> None:
    try:
        result = process_exo("run", "exo-demo", "Hi?")

        assert (result.code, result.out) == (0, "Hello.\n")
        assert "exo is not running: starting it in the background.\n" in result.err
    finally:
        assert process_exo("stop").code == 0


def test_run_starts_nothing_for_an_api_that_was_named(exo: Exo, paths: Paths) -> None:
    with FakeApi() as gone:
        url = gone.url

    result = exo("--api", url, "run", "exo-demo", "Hi?")

    assert result.code == 7
    assert not paths.log.exists()


def read_until(terminal: int, end: bytes) -> bytes:
    seen = b""
    while end not in seen:
        seen += os.read(terminal, 1024)
    return seen


def read_to_end(terminal: int) -> None:
    try:
        while os.read(terminal, 1024):
            pass
    except OSError:
        # Linux says EIO when the last process has closed its side; macOS says end of file.
        pass
