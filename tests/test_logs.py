"""What a line of a log says, and what it must not."""

import asyncio
import logging
import subprocess
import sys

import pytest

from exo.logs import LogFormat, about, describe, outside, request_id, told

SECRET = "what the prompt said"


def line(message: str = "Hello", error: BaseException | None = None) -> str:
    info = (type(error), error, error.__traceback__) if error else None
    record = logging.LogRecord("exo.x", logging.INFO, "x.py", 1, message, (), info)
    return LogFormat(dated=False).format(record)


def raised(error: Exception, cause: Exception | None = None) -> Exception:
    with pytest.raises(type(error)) as caught:
        raise error from cause
    return caught.value


def test_a_line_names_the_request_that_it_belongs_to():
    assert line() == "INFO exo.x: Hello"
    with about("req_1"):
        assert line() == "INFO exo.x [req_1]: Hello"
        with about(""):
            assert line() == "INFO exo.x: Hello"
    assert line() == "INFO exo.x: Hello"


async def test_what_outlives_a_request_is_not_named_after_it():
    seen: dict[str, str] = {}

    async def work(name: str) -> None:
        seen[name] = request_id.get()

    with about("req_1"):
        inside = asyncio.create_task(work("inside"))
        after = asyncio.get_running_loop().create_task(work("after"), context=outside())
        assert request_id.get() == "req_1"
    await asyncio.gather(inside, after)
    assert seen == {"inside": "req_1", "after": ""}


@pytest.mark.parametrize(
    "error",
    [
        ValueError(SECRET),
        KeyError(SECRET),
        RuntimeError(f"It failed: {SECRET}"),
        UnicodeDecodeError("utf-8", SECRET.encode(), 0, 1, SECRET),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_words_of_an_error_that_nobody_foresaw_are_not_logged(error: Exception):
    outer = raised(LookupError(SECRET), cause=raised(error))
    text = line("A request failed.", outer)
    assert SECRET not in text
    kinds = [part.splitlines()[-1] for part in text.split("\n\n")]
    assert kinds == [type(error).__name__, "LookupError"]
    assert "in raised" in text, "the place is told"


def test_the_words_of_the_system_and_of_mlx_are():
    assert told(FileNotFoundError(2, "No such file", "/x")) == (
        "FileNotFoundError: [Errno 2] No such file: '/x'"
    )
    text = "[matmul] Last dimension of first input with shape (2,3) must match."
    assert told(ValueError(text)) == f"ValueError: {text}"
    assert told(ValueError(f"[see] {SECRET}"[1:])) == "ValueError"


def test_a_circle_of_causes_ends():
    one, two = ValueError(), KeyError()
    one.__cause__, two.__cause__ = two, one
    assert describe(one).count("Traceback") == 2


@pytest.mark.parametrize(
    "end", ["raise ValueError(secret)", "threading.Thread(target=lambda: {}[secret]).start()"]
)
def test_what_ends_a_process_or_a_thread_is_logged_without_its_words(end: str):
    code = (
        "import logging, sys, threading; from exo.logs import LogFormat, log_uncaught;"
        "handler = logging.StreamHandler(); handler.setFormatter(LogFormat());"
        "logging.basicConfig(handlers=[handler]); log_uncaught(logging.getLogger('exo.x'));"
        f"secret = sys.argv[1]; {end}"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, SECRET], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "CRITICAL exo.x" in done.stderr
    assert "Error" in done.stderr.splitlines()[-1]
    assert SECRET not in done.stderr
