"""The `openai` Python client, unchanged but for the base URL, draws and edits."""

import asyncio
import io
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI, BadRequestError

from exo.cli.client import Client

from .painter import Studio
from .pictures import file_of, opened, png, with_hole

DRAW: dict[str, Any] = {"model": "can-all", "prompt": "a cat"}


@pytest.fixture
async def client(paint: Studio) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{paint.url}v1", api_key="none", max_retries=0) as client:
        yield client


async def test_generate(client: AsyncOpenAI, paint: Studio):
    params = {"advanced_params": {"seed": 3, "num_inference_steps": 2, "guidance": 1.5}}
    answer = await client.images.generate(
        **DRAW, n=2, size="128x64", quality="low", output_format="webp", output_compression=90,
        background="opaque", moderation="low", user="me", extra_body=params,
    )  # fmt: skip
    assert answer.data
    assert [opened(one.b64_json or "").size for one in answer.data] == [(128, 64)] * 2
    assert (answer.size, answer.quality, answer.output_format) == ("128x64", "low", "webp")
    assert answer.background == "opaque"
    assert answer.created > 1_600_000_000
    assert (paint.last.seed, paint.last.steps, paint.last.guidance) == (3, 2, 1.5)


async def test_generate_to_a_url(client: AsyncOpenAI):
    answer = await client.images.generate(**DRAW, response_format="url")
    assert answer.data
    assert answer.data[0].url
    async with httpx.AsyncClient(trust_env=False) as browser:
        response = await browser.get(answer.data[0].url)
    assert response.headers["content-type"] == "image/png"
    assert opened(response.content).size == (64, 64)


async def test_generate_in_a_stream(client: AsyncOpenAI):
    stream = await client.images.generate(**DRAW, stream=True, partial_images=2)
    events = [event async for event in stream]
    kinds = ["image_generation.partial_image"] * 2 + ["image_generation.completed"]
    assert [event.type for event in events] == kinds
    partial, *_, completed = events
    assert partial.type == "image_generation.partial_image"
    assert partial.partial_image_index == 0
    assert completed.type == "image_generation.completed"
    assert completed.usage.total_tokens > 0
    assert opened(completed.b64_json).getpixel((0, 0)) == (0, 4, 0)


async def test_edit_with_file_objects(client: AsyncOpenAI, paint: Studio):
    answer = await client.images.edit(
        **DRAW,
        image=[io.BytesIO(png((64, 80))), ("b.png", png(), "image/png")],
        mask=io.BytesIO(file_of(with_hole((64, 80)))),
        n=2,
        input_fidelity="high",
        extra_body={"advanced_params": {"seed": 9, "negative_prompt": "dogs"}},
    )
    assert answer.data
    assert len(answer.data) == 2
    asked = paint.last
    assert (len(asked.images), asked.seed, asked.negative_prompt) == (2, 9, "dogs")
    assert (asked.width, asked.height, asked.strength) == (64, 80, 0.7)
    assert asked.mask


async def test_edit_one_file_in_a_stream(client: AsyncOpenAI):
    stream = await client.images.edit(
        **DRAW, image=png(), stream=True, partial_images=1, output_format="jpeg"
    )
    events = [event async for event in stream]
    assert [event.type for event in events] == ["image_edit.partial_image", "image_edit.completed"]
    assert opened(events[-1].b64_json).format == "JPEG"


async def test_errors(client: AsyncOpenAI):
    for fields in ({"style": "vivid"}, {"n": 11}, {"size": "10x10"}, {"quality": "max"}):
        with pytest.raises(BadRequestError) as caught:
            await client.images.generate(**DRAW, **fields)
        assert caught.value.param == next(iter(fields))
    with pytest.raises(BadRequestError) as caught:
        await client.images.edit(**DRAW, image=b"not a picture")
    assert caught.value.param == "image"


async def test_what_the_command_line_sends(paint: Studio):
    """The form that `exo image` makes, and the comments that it reads."""
    steps: list[str] = []
    body = {**DRAW, "n": 1, "stream": True, "partial_images": 1, "advanced_params": {"seed": 4}}
    files = [("image[]", ("a.png", png())), ("mask", ("m.png", file_of(with_hole())))]

    def ask() -> list[dict[str, Any]]:
        with Client(paint.url, httpx.Client(base_url=paint.url, trust_env=False)) as api:
            return list(api.stream("/v1/images/edits", body, files, steps.append))

    events = await asyncio.to_thread(ask)
    assert [event["type"] for event in events] == [
        "image_edit.partial_image",
        "image_edit.completed",
    ]
    assert steps == [f"step {step}/4 image 0" for step in range(1, 5)]
    assert (paint.last.seed, len(paint.last.images)) == (4, 1)
    assert paint.last.mask
