"""The asynchronous `openai` Python client."""

import asyncio
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

pytestmark = pytest.mark.e2e

START: list[Any] = [{"role": "user", "content": "How do I start exo?"}]
WANTED: dict[str, Any] = {"model": "exo-demo", "messages": START, "temperature": 0}


async def test_models(async_client: AsyncOpenAI) -> None:
    assert "exo-demo" in [model.id async for model in async_client.models.list()]
    assert (await async_client.models.retrieve("exo-demo")).id == "exo-demo"


async def test_whole_and_streamed_are_the_same(async_client: AsyncOpenAI) -> None:
    whole = await async_client.chat.completions.create(**WANTED, max_tokens=40)
    stream = await async_client.chat.completions.create(**WANTED, max_tokens=40, stream=True)
    text = ""
    async for chunk in stream:
        text += chunk.choices[0].delta.content or ""
    assert text == whole.choices[0].message.content
    assert "exo" in text


async def test_many_at_once(async_client: AsyncOpenAI) -> None:
    """More than are computed together: some wait, all are answered alike."""
    answers = await asyncio.gather(
        *(async_client.chat.completions.create(**WANTED, max_tokens=16) for _ in range(40))
    )
    assert len({answer.choices[0].message.content for answer in answers}) == 1
    assert len({answer.id for answer in answers}) == len(answers)


async def test_cancelled_request(async_client: AsyncOpenAI) -> None:
    request = async_client.chat.completions.create(model="tiny", messages=START, max_tokens=2000)
    task = asyncio.create_task(request)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await async_client.chat.completions.create(**WANTED, max_tokens=3)).choices


async def test_errors(async_client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        await async_client.chat.completions.create(model="no-such-model", messages=START)
    with pytest.raises(openai.BadRequestError) as caught:
        await async_client.chat.completions.create(**{**WANTED, "temperature": 9})
    assert caught.value.param == "temperature"
