"""Real runner processes, with the fake engine in them: what the daemon sees of each kind of end."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from exo.errors import EngineError, ModelInvalid, RunnerDied
from exo.inference.messages import (
    Accepted,
    Failed,
    Finished,
    FromRunner,
    Generate,
    Hello,
    Load,
    Ready,
    RequestFailed,
    Tokens,
)
from exo.inference.runner import process as process_module
from exo.inference.runner.__main__ import make_encoder_engine
from exo.inference.runner.process import Quiet, RunnerProcess
from exo.inference.types import GenerateRequest
from tests.fakes.engine import MEMORY

ENGINE = "tests.fakes.engine:FakeEngine"
ENVIRONMENT = {"PYTHONPATH": os.pathsep.join(sys.path)}
LOAD = Load(
    path=Path("model"),
    start_layer=0,
    end_layer=4,
    context_length=1000,
    max_concurrency=4,
    max_queue=4,
    kv_tokens=4000,
    kv_bytes_per_token=1,
    prefix_cache_bytes=0,
    cast_float32=False,
)


def ask(text: str, request_id: str = "r", **fields: object) -> Generate:
    messages = [{"role": "user", "content": text}]
    return Generate(
        request=GenerateRequest.model_validate(
            {"request_id": request_id, "messages": messages, **fields}
        )
    )


async def until(messages: AsyncIterator[FromRunner], kind: type[FromRunner]) -> list[FromRunner]:
    """All messages up to the first of that kind."""
    seen: list[FromRunner] = []
    async for message in messages:
        seen.append(message)
        if isinstance(message, kind):
            return seen
    raise AssertionError(f"the runner ended without {kind.__name__}: {seen}")


@pytest.fixture
async def runner() -> AsyncIterator[RunnerProcess]:
    process = await RunnerProcess.start(ENGINE, ENVIRONMENT)
    yield process
    await process.stop()


async def loaded(runner: RunnerProcess, load: Load = LOAD) -> AsyncIterator[FromRunner]:
    messages = runner.messages()
    await until(messages, Hello)
    runner.send(load)
    ready = (await until(messages, Ready))[-1]
    assert ready == Ready(memory=MEMORY)
    return messages


async def test_it_loads_and_answers(runner: RunnerProcess):
    messages = await loaded(runner)
    runner.send(ask("one two end"))
    seen = await until(messages, Finished)
    assert any(isinstance(message, Accepted) for message in seen)
    deltas = [d for m in seen if isinstance(m, Tokens) for d in m.deltas]
    assert "".join(delta.text for delta in deltas) == "one two "


async def test_a_refused_request_leaves_the_runner_ready(runner: RunnerProcess):
    messages = await loaded(runner)
    runner.send(ask("refuse"))
    refused = (await until(messages, RequestFailed))[-1]
    assert isinstance(refused, RequestFailed)
    assert refused.error.param == "messages"
    runner.send(ask("end", "next"))
    await until(messages, Finished)


async def test_an_invalid_model_is_told_as_such(runner: RunnerProcess):
    messages = runner.messages()
    runner.send(LOAD.model_copy(update={"path": Path("invalid")}))
    failed = (await until(messages, Failed))[-1]
    assert isinstance(failed, Failed)
    assert isinstance(failed.error.to_error(), ModelInvalid)


async def test_a_failed_step_tells_the_requests_before_the_runner_is_given_up(
    runner: RunnerProcess,
):
    messages = await loaded(runner)
    runner.send(ask("fail"))
    seen = await until(messages, Failed)
    (told,) = [message for message in seen if isinstance(message, RequestFailed)]
    assert "told to fail" in told.error.message


async def test_a_crash_ends_the_messages_and_says_what_it_was(runner: RunnerProcess):
    messages = await loaded(runner)
    runner.send(ask("crash"))
    assert not [m async for m in messages if isinstance(m, Finished)]
    died = await runner.wait()
    assert isinstance(died, RunnerDied)
    assert "killed" in died.message
    assert not runner.alive


async def test_a_runner_that_hangs_is_killed(
    runner: RunnerProcess, monkeypatch: pytest.MonkeyPatch
):
    """Stopped as a whole, it sends no heartbeat; that is noticed from outside."""
    messages = await loaded(runner)
    monkeypatch.setattr(process_module, "SILENCE_SECONDS", 0.05)
    os.kill(runner.pid, signal.SIGSTOP)
    assert [message async for message in messages if isinstance(message, Tokens)] == []
    assert "said nothing" in (await runner.wait()).message


async def test_an_exit_is_told_with_the_last_words(tmp_path: Path):
    runner = await RunnerProcess.start("no.such.module:Engine", {})
    said = [message async for message in runner.messages()]
    # On a busy machine it takes so long to fail that its silence is told before.
    assert [message for message in said if not isinstance(message, Quiet)] == []
    assert "ModuleNotFoundError" in (await runner.wait()).message


async def test_the_runner_ends_when_the_daemon_is_gone():
    """A daemon that was killed says nothing; its end of the socket just closes."""
    runner = await RunnerProcess.start(ENGINE, ENVIRONMENT)
    messages = await loaded(runner)
    runner.send(ask("a b c", max_tokens=900))
    await until(messages, Tokens)
    runner._writer.transport.abort()
    assert await asyncio.wait_for(runner._process.wait(), 30) == 0
    await runner.wait()


def test_an_engine_for_encoders_is_the_third():
    assert type(make_encoder_engine(f"a:B,c:D,{ENGINE}")).__name__ == "FakeEngine"
    with pytest.raises(EngineError, match="no encoders"):
        make_encoder_engine(ENGINE)
