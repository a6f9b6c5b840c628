"""`/v1/images/generations`: what the engine is asked, what comes back, what is refused."""

import asyncio
import io
import json
from typing import Any

import httpx
import pytest
from openai.types import ImagesResponse, image_gen_stream_event
from openai.types.image_generate_params import (
    ImageGenerateParamsBase,
    ImageGenerateParamsNonStreaming,
)
from pydantic import TypeAdapter

from exo.errors import EngineError, QueueFull

from .painter import PROMPT_TOKENS, Studio
from .pictures import opened

EVENTS: TypeAdapter[Any] = TypeAdapter(image_gen_stream_event.ImageGenStreamEvent)


async def test_a_picture(paint: Studio):
    answer = await paint.generate()
    ImagesResponse.model_validate(answer, strict=True)
    [picture] = answer["data"]
    assert opened(picture["b64_json"]).format == "PNG"
    assert opened(picture["b64_json"]).size == (64, 64)
    assert (picture["url"], picture["revised_prompt"]) == (None, None)
    assert picture["seed"] == paint.last.seed
    shown = {key: answer[key] for key in ("background", "output_format", "quality", "size")}
    assert shown == {
        "background": "opaque", "output_format": "png", "quality": "medium", "size": "64x64",
    }  # fmt: skip
    usage = answer["usage"]
    assert usage["input_tokens_details"] == {"image_tokens": 0, "text_tokens": PROMPT_TOKENS}
    assert (usage["output_tokens"], usage["total_tokens"]) == (16, 16 + PROMPT_TOKENS)
    asked = paint.last
    assert (asked.prompt, asked.steps, asked.n, asked.images) == ("a cat", 4, 1, ())
    assert (asked.guidance, asked.negative_prompt, asked.strength) == (None, None, None)


async def test_several_pictures_and_their_seeds(paint: Studio):
    answer = await paint.generate(n=3, advanced_params={"seed": 7})
    assert [picture["seed"] for picture in answer["data"]] == [7, 8, 9]
    reds = [opened(picture["b64_json"]).getpixel((0, 0)) for picture in answer["data"]]
    assert reds == [(0, 4, 0), (1, 4, 0), (2, 4, 0)]
    assert (paint.last.seed, paint.last.n) == (7, 3)


async def test_a_seed_is_drawn_where_none_is_given(paint: Studio):
    seeds = {(await paint.generate())["data"][0]["seed"] for _ in range(3)}
    assert len(seeds) == 3


async def test_the_prompt_stays_as_it_is(paint: Studio):
    for prompt in (" two  spaces\n", "🦀 \u2028 'quotes' \"", "x" * 32_000):
        await paint.generate(prompt=prompt)
        assert paint.last.prompt == prompt
    assert "prompt" in await paint.refused("prompt", prompt="x" * 32_001)


@pytest.mark.parametrize(
    ("quality", "steps", "shown"),
    [("auto", 4, "medium"), ("low", 2, "low"), ("medium", 4, "medium"), ("high", 8, "high"),
     ("standard", 4, "medium"), ("hd", 8, "high"), (None, 4, "medium")],
)  # fmt: skip
async def test_qualities_are_steps(paint: Studio, quality: str | None, steps: int, shown: str):
    answer = await paint.generate(quality=quality)
    assert (paint.last.steps, answer["quality"]) == (steps, shown)


async def test_steps_that_are_given_are_computed_and_counted(paint: Studio):
    answer = await paint.generate(
        path="/bench", quality="high", n=2, advanced_params={"num_inference_steps": 5}
    )
    assert paint.last.steps == 5
    assert answer["generation_stats"] == {
        "seconds_per_step": 0.25,
        "total_generation_time": 2.0,
        "num_inference_steps": 5,
        "num_images": 2,
        "image_width": 64,
        "image_height": 64,
        "peak_memory_usage": 1000,
        "approximate": False,
    }
    assert "generation_stats" not in await paint.generate()


async def test_all_of_advanced_params(paint: Studio):
    given = {"seed": 2**63 - 1, "num_inference_steps": 100, "guidance": 3, "negative_prompt": "dog"}
    await paint.generate(advanced_params=given)
    asked = paint.last
    assert (asked.seed, asked.steps) == (given["seed"], 100)
    assert (asked.guidance, asked.negative_prompt) == (3.0, "dog")
    for name, wrong in {
        "seed": -1, "num_inference_steps": 101, "guidance": 20.5, "negative_prompt": 5,
    }.items():  # fmt: skip
        await paint.refused(f"advanced_params.{name}", advanced_params={name: wrong})
    await paint.refused("advanced_params.x", advanced_params={"x": 1})
    await paint.refused("advanced_params", advanced_params="{}")


async def test_patches_are_asked_for_and_told_to_be_approximate(paint: Studio):
    given = {"patches": 4, "num_sync_steps": 2}
    answer = await paint.generate(path="/bench", advanced_params=given)
    assert (paint.last.patches, paint.last.sync_steps) == (4, 2)
    assert answer["generation_stats"]["approximate"] is True
    await paint.generate(advanced_params={"patches": 2})
    assert (paint.last.patches, paint.last.sync_steps) == (2, None)
    for name, wrong in {
        "patches": 1, "num_sync_steps": 0,
    }.items():  # fmt: skip
        await paint.refused(f"advanced_params.{name}", advanced_params={"patches": 2, name: wrong})
    # A picture of 64 pixels has four rows.
    await paint.refused("advanced_params.patches", advanced_params={"patches": 5})
    await paint.refused("advanced_params.num_sync_steps", advanced_params={"num_sync_steps": 1})


@pytest.mark.parametrize("size", ["64x64", "256x144", "144x256", "192x192", "auto"])
async def test_sizes(paint: Studio, size: str):
    answer = await paint.generate(size=size)
    expected = "64x64" if size == "auto" else size
    assert f"{paint.last.width}x{paint.last.height}" == answer["size"] == expected


@pytest.mark.parametrize(
    ("size", "near"),
    [("65x64", "64x64"), ("48x64", "64x80"), ("272x64", "256x64"), ("256x256", "192x192"),
     ("1024x1024", "192x192"), ("16x16", "64x64")],
)  # fmt: skip
async def test_sizes_that_are_not_possible_say_the_nearest(paint: Studio, size: str, near: str):
    message = await paint.refused("size", size=size)
    assert f"{near} is the nearest" in message
    await paint.generate(size=near)


@pytest.mark.parametrize("size", ["big", "0x64", "64", "64x", "x", "64x64x64", "-64x64", "1e2x64"])
async def test_sizes_that_are_none(paint: Studio, size: str):
    await paint.refused("size", size=size)


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
async def test_formats(paint: Studio, form: str):
    answer = await paint.generate(output_format=form)
    picture = opened(answer["data"][0]["b64_json"])
    assert (picture.format, answer["output_format"]) == (form.upper(), form)
    assert picture.size == (64, 64)
    red, green, _ = picture.convert("RGB").getpixel((0, 0))
    assert abs(red) < 6
    assert abs(green - 4) < 6


async def test_compression(paint: Studio):
    for form in ("jpeg", "webp"):
        for level in (0, 50, 100):
            answer = await paint.generate(output_format=form, output_compression=level)
            assert opened(answer["data"][0]["b64_json"]).format == form.upper()
    await paint.generate(output_compression=100)
    assert "png" in await paint.refused(None, output_compression=50)
    await paint.refused("output_compression", output_format="jpeg", output_compression=101)


# For each field of OpenAI's: values that are honoured, and values that are refused.
FIELDS: dict[str, tuple[list[Any], list[Any]]] = {
    "prompt": (["a cat", ""], [5, None]),
    "model": (["can-all"], ["", None, 3]),
    "n": ([1, 10, None], [0, 11, 1.5, "2", True]),
    "size": (["auto", "64x80", None], ["65x64", 64]),
    "quality": (["auto", "low", "medium", "high", "standard", "hd", None], ["xhigh", "max"]),
    "output_format": (["png", "jpeg", "webp", None], ["gif", "svg"]),
    "output_compression": ([100, None], [-1, 101, 50]),
    "response_format": (["b64_json", "url", None], ["json"]),
    "stream": ([False, None], ["true", 1]),
    "partial_images": ([0, None], [1, 4, -1]),
    "background": (["auto", "opaque", None], ["transparent"]),
    "moderation": (["auto", "low", None], ["high"]),
    "user": (["me", None], [5]),
    "safety_identifier": (["hash", None], [5]),
    "style": ([None], ["vivid", "natural"]),
    "complexity": ([None], ["low", "medium", "high"]),
    "frame_count": ([None], [2]),
    "frame_duration_ms": ([None], [200]),
    "svg": ([None], [{"model": "m"}]),
}


def test_every_field_of_openai_has_a_rule():
    for known in (ImageGenerateParamsBase, ImageGenerateParamsNonStreaming):
        assert set(known.__annotations__) <= set(FIELDS)


@pytest.mark.parametrize("name", FIELDS)
async def test_every_field_is_honoured_or_refused(paint: Studio, name: str):
    honoured, refused = FIELDS[name]
    for value in honoured:
        await paint.generate(**{name: value})
    for value in refused:
        answer = await paint.generate(400, **{name: value})
        assert answer["error"]["param"] in {name, None}
        assert name in answer["error"]["message"]


async def test_unknown_fields_and_bodies_that_are_none(paint: Studio):
    await paint.refused("num_steps", num_steps=4)
    await paint.refused("input_fidelity", input_fidelity="high")
    for body in (b"", b"{", b"[]", b'"x"', b"\xff", b"[" * 100_000):
        async with paint.client.post("/v1/images/generations", data=body) as response:
            assert response.status == 400
            assert (await response.json())["error"]["type"] == "invalid_request_error"
    large = io.BytesIO(b" " * 2**21)
    async with paint.client.post("/v1/images/generations", data=large) as response:
        assert response.status == 413
        assert (await response.json())["error"]["code"] == "body_too_large"


# What a model cannot, and who can.
@pytest.mark.parametrize(
    ("model", "fields", "param", "able"),
    [
        ("can-edit", {}, "model", "can-all, can-little"),
        ("can-little", {"prompt": "  "}, "prompt", "can-all"),
        ("can-little", {"advanced_params": {"guidance": 2}}, "advanced_params.guidance",
         "can-all, can-edit"),
        ("can-all", {"advanced_params": {"guidance": 15}}, "advanced_params.guidance", None),
        ("can-little", {"advanced_params": {"negative_prompt": "x"}},
         "advanced_params.negative_prompt", "can-all"),
        ("can-little", {"advanced_params": {"num_inference_steps": 1}},
         "advanced_params.num_inference_steps", "can-all, can-edit"),
    ],
)  # fmt: skip
async def test_what_a_model_cannot_names_those_that_can(
    paint: Studio, model: str, fields: dict[str, Any], param: str, able: str | None
):
    message = await paint.refused(param, model=model, **fields)
    assert model in message
    assert (f"These can: {able}." if able else "No known model can.") in message
    assert paint.painter.asked == []


async def test_text_models_and_unknown_ones(paint: Studio):
    message = await paint.refused("model", model="says")
    assert "makes no images" in message
    assert "can-all" in message
    await paint.refused("model", status=404, model="nobody")


async def test_an_image_model_does_not_chat(paint: Studio):
    body = {"model": "can-all", "messages": [{"role": "user", "content": "Hello"}]}
    async with paint.client.post("/v1/chat/completions", json=body) as response:
        error = (await response.json())["error"]
    assert (response.status, error["param"]) == (400, "model")
    assert "makes images" in error["message"]
    assert "says" in error["message"]


async def test_refusals_and_failures_of_the_engine(paint: Studio):
    paint.painter.refusal = QueueFull("Too many wait.", retry_after=3)
    async with paint.client.post(
        "/v1/images/generations", json={"model": "can-all", "prompt": "x"}
    ) as response:
        assert (response.status, response.headers["Retry-After"]) == (429, "3")
    paint.painter.refusal = None
    paint.painter.error = EngineError("It broke.")
    assert "It broke" in await paint.refused(None, status=500)


async def test_a_node_that_stops_draws_nothing(paint: Studio):
    paint.context.draining = True
    await paint.refused(None, status=503)


# Streams.


async def streamed(paint: Studio, path: str = "/v1", **fields: Any) -> tuple[list[Any], list[str]]:
    """The events, each checked against its name, and the comments."""
    body = {"model": "can-all", "prompt": "a cat", "stream": True, **fields}
    async with paint.client.post(f"{path}/images/generations", json=body) as response:
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        return parse((await response.read()).decode())


def parse(text: str) -> tuple[list[Any], list[str]]:
    events: list[Any] = []
    comments: list[str] = []
    for block in text.strip().split("\n\n"):
        if block.startswith(": "):
            comments.append(block[2:])
            continue
        lines = dict(line.split(": ", 1) for line in block.splitlines())
        if lines["data"] == "[DONE]":
            continue
        events.append(json.loads(lines["data"]))
        assert lines.get("event") == events[-1].get("type")
    assert text.endswith("data: [DONE]\n\n") or "error" in events[-1]
    return events, comments


async def test_a_stream_with_partial_images(paint: Studio):
    events, comments = await streamed(paint, partial_images=2, n=2, output_format="webp")
    for event in events:
        EVENTS.validate_python(event, strict=True)
    short = [
        (e["type"].split(".")[1], e["image_index"], e.get("partial_image_index")) for e in events
    ]
    assert short == [
        ("partial_image", 0, 0), ("partial_image", 0, 1), ("completed", 0, None),
        ("partial_image", 1, 0), ("partial_image", 1, 1), ("completed", 1, None),
    ]  # fmt: skip
    assert all(opened(event["b64_json"]).format == "WEBP" for event in events)
    assert [e["seed"] for e in events if "seed" in e] == [paint.last.seed, paint.last.seed + 1]
    assert comments == [f"step {step}/4 image {index}" for index in (0, 1) for step in range(1, 5)]


async def test_a_stream_without_partial_images(paint: Studio):
    events, _ = await streamed(paint)
    assert [event["type"] for event in events] == ["image_generation.completed"]
    assert paint.last.partial_images == 0


async def test_a_benchmarked_stream_ends_with_its_statistics(paint: Studio):
    _, comments = await streamed(paint, path="/bench")
    name, figures = comments[-1].split(" ", 1)
    assert (name, json.loads(figures)["num_inference_steps"]) == ("generation_stats", 4)


async def test_a_failure_in_a_stream_is_its_last_event(paint: Studio):
    paint.painter.error = EngineError("It broke.")
    events, _ = await streamed(paint, partial_images=3)
    assert events[-1]["error"]["message"] == "It broke."


async def test_what_does_not_go_with_a_stream(paint: Studio):
    assert "url" in await paint.refused(None, stream=True, response_format="url")
    assert "stream" in await paint.refused(None, partial_images=2)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_ends_the_drawing(paint: Studio, stream: bool):
    """The node is told, so that nothing is computed for nobody."""
    paint.painter.hangs = True
    body = {"model": "can-all", "prompt": "x", "stream": stream}
    asking = asyncio.ensure_future(paint.client.post("/v1/images/generations", json=body))
    async with asyncio.timeout(60):
        if stream:
            async with await asking as response:
                await response.content.readuntil(b"completed")
                response.close()
        else:
            await paint.painter.begun.wait()
            asking.cancel()
        await paint.painter.closed.wait()


async def test_a_client_that_sends_on_gets_its_answer(paint: Studio):
    """Most clients send all of a body before they look at the answer."""
    large = b"x" * 60 * 2**20
    bodies: dict[str, Any] = {
        "edits": {"files": {"image": ("a.png", large)}},
        "generations": {"content": large},
    }
    async with httpx.AsyncClient(base_url=paint.url, trust_env=False, timeout=60) as client:
        for path, body in bodies.items():
            response = await client.post(f"/v1/images/{path}", **body)
            assert response.status_code == 413
            assert response.json()["error"]["code"] == "body_too_large"
