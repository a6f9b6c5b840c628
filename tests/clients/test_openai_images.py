"""The `openai` Python client asks for pictures: a tiny image model, drawn by a real runner."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import BadRequestError, OpenAI
from PIL import Image

from tests.conftest import new_home
from tests.e2e.daemon import Daemon
from tests.inference.image.maker import make_image_model

pytestmark = pytest.mark.e2e

MODEL = "tiny-klein"
SIZE: Any = "64x48"
FIELDS: dict[str, Any] = {"model": MODEL, "prompt": "a red circle", "size": SIZE}


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory, measured: Path) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("studio")
    make_image_model(folder / "models" / MODEL, "flux.2-klein-4b")
    daemon = Daemon.start(
        new_home(folder / "home", measured), models_dir=folder / "models", spare_runners=0
    )
    try:
        yield daemon
    finally:
        daemon.stop()


@pytest.fixture
def painter(studio: Daemon) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{studio.base_url}/v1", api_key="none", max_retries=0) as client:
        yield client


def with_settings(**settings: object) -> dict[str, Any]:
    """Of exo's own, which the client passes on."""
    return {"extra_body": {"advanced_params": {"num_inference_steps": 2, **settings}}}


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def drawn(painter: OpenAI, seed: int, **fields: Any) -> list[bytes]:
    answer = painter.images.generate(**FIELDS, **with_settings(seed=seed), **fields)
    return [base64.b64decode(one.b64_json or "") for one in answer.data or []]


def some_file(size: tuple[int, int] = (64, 48)) -> tuple[str, bytes, str]:
    file = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(file, "PNG")
    return "in.png", file.getvalue(), "image/png"


def test_the_same_seed_draws_the_same_bytes_and_the_next_picture_has_the_next(painter: OpenAI):
    two = drawn(painter, 5, n=2)
    assert [opened(data).size for data in two] == [(64, 48)] * 2
    assert two[0] != two[1]
    assert drawn(painter, 5) == two[:1]
    assert drawn(painter, 6) == two[1:]


def test_addresses(painter: OpenAI):
    answer = painter.images.generate(**FIELDS, **with_settings(seed=5), response_format="url")
    url = (answer.data or [])[0].url or ""
    response = httpx.get(url)
    assert response.headers["Content-Type"] == "image/png"
    assert [response.content] == drawn(painter, 5)


def test_previews_come_before_the_picture(painter: OpenAI):
    fields = {**FIELDS, "stream": True, "partial_images": 2, "output_format": "webp"}
    settings = with_settings(seed=5, num_inference_steps=4)
    events = list(painter.images.generate(**fields, **settings))
    assert [event.type for event in events] == [
        "image_generation.partial_image",
        "image_generation.partial_image",
        "image_generation.completed",
    ]
    files = [base64.b64decode(event.b64_json) for event in events]
    assert {(opened(data).format, opened(data).size) for data in files} == {("WEBP", (64, 48))}
    assert len(set(files)) == 3


def test_edits_of_one_and_of_two_images(painter: OpenAI):
    fields: Any = {"model": MODEL, "prompt": "make it green", **with_settings(seed=5)}
    one = painter.images.edit(image=some_file(), **fields)
    two = painter.images.edit(image=[some_file(), some_file((48, 48))], **fields)
    pictures = [base64.b64decode((answer.data or [])[0].b64_json or "") for answer in (one, two)]
    assert [opened(data).size for data in pictures] == [(64, 48)] * 2
    assert pictures[0] != pictures[1]


def test_what_the_model_cannot_do_is_said_before_it_is_drawn(painter: OpenAI):
    with pytest.raises(BadRequestError) as refused:
        painter.images.edit(
            model=MODEL, prompt="a hat", image=some_file(), mask=some_file(), size=SIZE
        )
    assert refused.value.param == "mask"


def test_statistics_are_of_what_was_computed(studio: Daemon):
    body = {**FIELDS, "n": 2, "advanced_params": {"num_inference_steps": 3}}
    stats = studio.http.post("/bench/images/generations", json=body).json()["generation_stats"]
    assert (stats["num_inference_steps"], stats["num_images"]) == (3, 2)
    assert (stats["image_width"], stats["image_height"]) == (64, 48)
    assert stats["total_generation_time"] > stats["seconds_per_step"] > 0
    assert stats["peak_memory_usage"] > 0


def test_who_hangs_up_is_drawn_for_no_longer(studio: Daemon):
    """What nobody waits for would hold up the next request for longer than that one waits."""
    settings = {"num_inference_steps": 100}
    body = {**FIELDS, "stream": True, "n": 10, "size": "768x768", "advanced_params": settings}
    with studio.http.stream("POST", "/v1/images/generations", json=body) as lines:
        assert next(line for line in lines.iter_lines() if line.startswith(": step"))
    said = studio.http.post(
        "/bench/images/generations", json={**FIELDS, "advanced_params": {"num_inference_steps": 1}}
    ).json()
    assert said["generation_stats"]["num_inference_steps"] == 1
    assert studio.get("/state")["instances"]


def test_chats_are_for_other_models(painter: OpenAI):
    with pytest.raises(BadRequestError) as refused:
        painter.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hi"}])
    assert refused.value.param == "model"


def at(picture: Image.Image, across: float, down: float) -> tuple[int, ...]:
    """The colour of one pixel, at parts of the picture's sides."""
    pixel = picture.convert("RGB").getpixel((int(across * 63), int(down * 63)))
    assert isinstance(pixel, tuple)
    return pixel


def test_the_bundled_model_draws_what_is_asked_and_changes_it(painter: OpenAI):
    """In the middle and in the corners; which of red, green and blue is the strongest there."""
    made = painter.images.generate(
        model="exo-demo-image",
        prompt="a red circle on a blue background",
        extra_body={"advanced_params": {"seed": 1}},
    )
    png = base64.b64decode((made.data or [])[0].b64_json or "")
    changed = painter.images.edit(
        model="exo-demo-image",
        prompt="make the circle green",
        image=("circle.png", png, "image/png"),
        extra_body={"advanced_params": {"seed": 1}},
    )
    after = base64.b64decode((changed.data or [])[0].b64_json or "")
    for data, strongest in ((png, 0), (after, 1)):
        picture = opened(data)
        middle, corner = at(picture, 0.5, 0.5), at(picture, 0.02, 0.02)
        assert middle.index(max(middle)) == strongest
        assert corner.index(max(corner)) == 2
