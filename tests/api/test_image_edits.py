"""`/v1/images/edits`: forms and their files, and what the engine gets of them."""

import io
import json
import random
import zlib
from typing import Any

import pytest
from aiohttp import FormData, MultipartWriter
from openai.types import ImagesResponse, image_edit_stream_event
from openai.types.image_edit_params import ImageEditParamsBase, ImageEditParamsNonStreaming
from PIL import Image
from pydantic import TypeAdapter

from .painter import BODY_LIMIT, Studio, message
from .pictures import BLUE, RED, file_of, halves, opened, plain, png, with_hole
from .test_images import FIELDS, parse

EVENTS: TypeAdapter[Any] = TypeAdapter(image_edit_stream_event.ImageEditStreamEvent)
PNG = png()


def form(*images: bytes, mask: bytes | None = None, name: str = "image", **fields: Any) -> FormData:
    """As the clients send it: values are text."""
    data = FormData(default_to_multipart=True)
    for index, image in enumerate(images):
        data.add_field(name, io.BytesIO(image), filename=f"{index}.png", content_type="image/png")
    if mask is not None:
        data.add_field("mask", mask, filename="mask.png", content_type="image/png")
    for key, value in {"model": "can-all", "prompt": "blue", **fields}.items():
        if value is not None:
            data.add_field(key, value if isinstance(value, str) else json.dumps(value))
    return data


async def refused(paint: Studio, param: str | None, *images: bytes, **given: Any) -> str:
    """The message of the error; without an image it is a good one that is sent."""
    answer = await paint.edit(form(*(images or (PNG,)), **given), 400)
    assert paint.painter.asked == []
    return message(answer, param)


async def test_an_edit(paint: Studio):
    answer = await paint.edit(form(png((64, 80))))
    ImagesResponse.model_validate(answer, strict=True)
    assert opened(answer["data"][0]["b64_json"]).size == (64, 80)
    assert answer["usage"]["input_tokens_details"]["image_tokens"] == 20
    asked = paint.last
    [image] = asked.images
    assert opened(image).size == (64, 80)
    assert (opened(image).mode, opened(image).getpixel((0, 0))) == ("RGB", RED)
    assert (asked.mask, asked.strength, asked.prompt) == (None, None, "blue")


@pytest.mark.parametrize("name", ["image", "image[]"])
async def test_several_images_in_order(paint: Studio, name: str):
    await paint.edit(form(png(color=RED), png(color=BLUE), png((16, 16)), name=name))
    first = [opened(image).getpixel((0, 0)) for image in paint.last.images]
    assert first == [RED, BLUE, RED]
    assert "4 images" in await refused_again(paint, "image", *[PNG] * 4)
    assert "can-all" in await refused_again(paint, "image", PNG, PNG, model="can-edit")


async def refused_again(paint: Studio, param: str | None, *images: bytes, **given: Any) -> str:
    paint.painter.asked.clear()
    return await refused(paint, param, *images, **given)


@pytest.mark.parametrize(
    ("size", "drawn"),
    [((64, 64), (64, 64)), ((100, 70), (96, 64)), ((1, 1), (64, 64)), ((2000, 1000), (256, 128)),
     ((500, 500), (192, 192)), ((3000, 10), (256, 64)), ((10, 300), (64, 256))],
)  # fmt: skip
async def test_without_a_size_it_is_the_first_image_s(
    paint: Studio, size: tuple[int, int], drawn: tuple[int, int]
):
    await paint.edit(form(png(size), png((16, 16))))
    assert (paint.last.width, paint.last.height) == drawn
    width, height = opened(paint.last.images[0]).size
    assert max(width, height) <= 256, "the engine gets no more than the model can use"
    assert width * height <= 36_864


async def test_with_a_size_it_is_that(paint: Studio):
    await paint.edit(form(png((100, 70)), size="128x64"))
    assert (paint.last.width, paint.last.height) == (128, 64)
    await refused_again(paint, "size", size="100x70")


async def test_fields_of_a_form_are_text(paint: Studio):
    params = {"seed": 5, "num_inference_steps": 3, "guidance": 2.5, "negative_prompt": "dog"}
    answer = await paint.edit(
        form(PNG, n=2, quality="high", output_format="jpeg", output_compression=80,
             response_format="b64_json", stream=False, partial_images=0, user="", size="",
             advanced_params=params, input_fidelity="high")
    )  # fmt: skip
    assert [opened(one["b64_json"]).format for one in answer["data"]] == ["JPEG", "JPEG"]
    asked = paint.last
    assert (asked.seed, asked.steps, asked.guidance) == (5, 3, 2.5)
    assert (asked.negative_prompt, asked.strength, asked.n) == ("dog", 0.7, 2)


async def test_advanced_params_in_pieces(paint: Studio):
    """As a client writes an object that it knows nothing about."""
    pieces = {"advanced_params[seed]": "5", "advanced_params[negative_prompt]": "7"}
    await paint.edit(form(PNG, **pieces))
    assert (paint.last.seed, paint.last.negative_prompt) == (5, "7")
    await refused_again(paint, "advanced_params.x", **{"advanced_params[x]": "1"})
    await refused_again(paint, "advanced_params", advanced_params="{}", **pieces)
    await refused_again(paint, "advanced_params", advanced_params="{bad")
    await refused_again(paint, "advanced_params.seed", advanced_params={"seed": "5"})


# What a form adds to the fields of a generation, and what JSON would have made of the others.
OTHERS: dict[str, tuple[list[Any], list[Any]]] = {
    **FIELDS,
    "prompt": (["blue", ""], [None]),
    "model": (["can-all"], ["", None]),
    "n": ([1, 10, ""], [0, 11, "1.5", "two", "true"]),
    "size": (["auto", "64x80", ""], ["65x64", "64"]),
    "stream": (["false", ""], ["yes", "1"]),
    "user": (["me", ""], []),
    "safety_identifier": (["hash", ""], []),
    "input_fidelity": (["low", "high", ""], ["medium"]),
    "markup": ([], ["x"]),
}


def test_every_field_of_openai_has_a_rule():
    for known in (ImageEditParamsBase, ImageEditParamsNonStreaming):
        assert set(known.__annotations__) - {"image", "mask"} <= set(OTHERS)


@pytest.mark.parametrize("name", OTHERS)
async def test_every_field_is_honoured_or_refused(paint: Studio, name: str):
    honoured, wrong = OTHERS[name]
    for value in honoured:
        await paint.edit(form(PNG, **{name: value}))
    for value in wrong:
        answer = await paint.edit(form(PNG, **{name: value}), 400)
        assert answer["error"]["param"] in {name, None}
        assert name in answer["error"]["message"]


@pytest.mark.parametrize(
    ("model", "given", "param", "able"),
    [
        ("can-little", {}, "model", "can-all, can-edit"),
        ("can-edit", {"mask": file_of(with_hole())}, "mask", "can-all"),
        ("can-edit", {"input_fidelity": "high"}, "input_fidelity", "can-all"),
        ("can-edit", {"prompt": ""}, "prompt", "can-all"),
    ],
)
async def test_what_a_model_cannot_names_those_that_can(
    paint: Studio, model: str, given: dict[str, Any], param: str, able: str
):
    text = await refused(paint, param, model=model, **given)
    assert f"These can: {able}." in text


async def test_strength_is_only_for_models_that_have_it(paint: Studio):
    await paint.edit(form(PNG, model="can-edit", input_fidelity="low"))
    assert paint.last.strength is None
    await paint.edit(form(PNG, input_fidelity="low"))
    assert paint.last.strength == 0.3


async def test_streams(paint: Studio):
    form_data = form(png((64, 64)), stream="true", partial_images=1)
    async with paint.client.post("/v1/images/edits", data=form_data) as response:
        events, comments = parse(await response.text())
    for event in events:
        EVENTS.validate_python(event, strict=True)
    assert [e["type"] for e in events] == ["image_edit.partial_image", "image_edit.completed"]
    assert events[1]["usage"]["input_tokens_details"]["image_tokens"] == 16
    assert comments[0] == "step 1/4 image 0"


async def test_benchmarked(paint: Studio):
    answer = await paint.edit(form(PNG), path="/bench")
    assert answer["generation_stats"]["num_inference_steps"] == 4


# Files.


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "CMYK", "LA", "RGBA", "I;16", "YCbCr"])
async def test_kinds_of_pixels(paint: Studio, mode: str):
    """Grey stays the grey it is, whatever it was stored as."""
    form_name = {"CMYK": "JPEG", "YCbCr": "JPEG"}.get(mode, "PNG")
    grey = {"I;16": 0x8080, "1": 1}.get(mode, 128)
    if mode in {"I;16", "1", "L"}:
        picture = Image.new(mode, (32, 32), grey)
    else:
        colour = Image.new("RGB", (32, 32), (128, 128, 128))
        picture = colour.convert(mode, palette=Image.Palette.ADAPTIVE)
    await paint.edit(form(file_of(picture, form_name)))
    image = opened(paint.last.images[0])
    red, green, blue = image.getpixel((5, 5))
    wanted = 255 if mode == "1" else 128
    assert all(abs(value - wanted) <= 4 for value in (red, green, blue))


@pytest.mark.parametrize("form_name", ["PNG", "JPEG", "WEBP"])
async def test_upright_and_without_metadata(paint: Studio, form_name: str):
    """A camera stores the picture as it was held, and how it was held."""
    exif = Image.Exif()
    exif[0x0112] = 6  # Turned by 90 degrees: left is what is below.
    exif[0x010E] = "where I live"
    await paint.edit(form(file_of(halves((64, 32)), form_name, exif=exif.tobytes())))
    data = paint.last.images[0]
    picture = opened(data)
    assert picture.size == (32, 64)
    assert picture.getpixel((16, 5))[0] > 200, "red was on the left, and is above now"
    assert picture.getpixel((16, 60))[2] > 200
    assert b"where I live" not in data
    assert picture.info == {}


async def test_transparent_parts(paint: Studio):
    """They may change, where the model takes a mask; else they are white."""
    await paint.edit(form(file_of(with_hole())))
    mask = opened(paint.last.mask or b"")
    assert (mask.mode, mask.size) == ("L", (32, 32))
    assert (mask.getpixel((2, 2)), mask.getpixel((30, 2))) == (255, 0)
    picture = opened(paint.last.images[0])
    assert (picture.getpixel((2, 2)), picture.getpixel((30, 2))) == ((255, 255, 255), RED)
    await paint.edit(form(file_of(with_hole()), model="can-edit"))
    assert paint.last.mask is None
    await paint.edit(form(file_of(plain(color=(*RED, 254), mode="RGBA"))))
    assert paint.last.mask is None, "what shines through a little is not a mask"


async def test_masks(paint: Studio):
    """What is transparent in it is white for the engine; the rest of it does not matter."""
    await paint.edit(form(png(), PNG, mask=file_of(with_hole(color=BLUE))))
    mask = opened(paint.last.mask or b"")
    assert (mask.getpixel((2, 2)), mask.getpixel((30, 2))) == (255, 0)
    await paint.edit(form(png((512, 512)), mask=file_of(with_hole((512, 512)))))
    mask = opened(paint.last.mask or b"")
    assert mask.size == opened(paint.last.images[0]).size == (192, 192)
    assert {color for _, color in mask.getcolors()} == {0, 255}


async def test_masks_that_do_not_fit(paint: Studio):
    text = await refused(paint, "mask", mask=file_of(with_hole((16, 32))))
    assert "16 by 32" in text
    assert "32 by 32" in text
    assert "no transparent part" in await refused(paint, "mask", mask=PNG)
    opaque = file_of(plain(color=(*RED, 255), mode="RGBA"))
    assert "no transparent part" in await refused(paint, "mask", mask=opaque)
    assert "mask" in await refused(paint, "mask", mask=b"not a picture")


def animation(form_name: str) -> bytes:
    frames = [plain(color=color) for color in (RED, BLUE)]
    return file_of(frames[0], form_name, save_all=True, append_images=frames[1:])


def bomb() -> bytes:
    """20,000 by 20,000 pixels in a few bytes, if only the header is read."""
    picture = bytearray(file_of(plain((1, 1))))
    header = picture.index(b"IHDR") + 4
    picture[header : header + 8] = (20_000).to_bytes(4, "big") * 2
    crc = zlib.crc32(picture[header - 4 : header + 13])
    picture[header + 13 : header + 17] = crc.to_bytes(4, "big")
    return bytes(picture)


NOISE = random.Random(1).randbytes(64 * 32)  # noqa: S311
BAD_FILES = {
    "empty": (b"", "no picture"),
    "text": (b"hello", "no picture"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no picture"),
    "gif": (file_of(plain(), "GIF"), "no picture"),
    "animated gif": (animation("GIF"), "no picture"),
    "bmp": (file_of(plain(), "BMP"), "no picture"),
    "tiff": (file_of(plain(), "TIFF"), "no picture"),
    "animated webp": (animation("WEBP"), "animated"),
    "animated png": (animation("PNG"), "animated"),
    "bomb": (bomb(), "20000 by 20000"),
    "cut png": (file_of(Image.frombytes("L", (64, 32), NOISE))[:400], "damaged"),
    "cut jpeg": (file_of(Image.frombytes("L", (64, 32), NOISE), "JPEG")[:-500], "damaged"),
    "cut webp": (file_of(Image.frombytes("L", (64, 32), NOISE), "WEBP")[:300], "picture"),
    "only a signature": (b"\x89PNG\r\n\x1a\n", "picture"),
    "wrong checksum": (PNG[:40] + b"\0\0\0\0" + PNG[44:], "picture"),
}


@pytest.mark.parametrize("name", BAD_FILES)
async def test_files_that_are_no_pictures(paint: Studio, name: str):
    data, said = BAD_FILES[name]
    text = await refused(paint, "image", data)
    assert said in text or "damaged" in text
    assert "image 1" in text
    assert "image 2" in await refused(paint, "image", PNG, data)


async def test_any_cut_of_a_file_is_refused_or_read(paint: Studio):
    for form_name in ("PNG", "JPEG", "WEBP"):
        whole = file_of(halves((48, 48)), form_name)
        for length in range(0, len(whole), max(1, len(whole) // 25)):
            async with paint.client.post("/v1/images/edits", data=form(whole[:length])) as response:
                assert response.status in {200, 400}, await response.text()


async def test_a_body_that_is_too_large(paint: Studio):
    for form_data in (form(b"x" * (BODY_LIMIT + 1)), form(*[b"x" * (BODY_LIMIT // 3)] * 3)):
        answer = await paint.edit(form_data, 413)
        assert answer["error"]["code"] == "body_too_large"


async def test_a_body_that_is_too_large_and_does_not_say_so(paint: Studio):
    """In chunks, so that the length is known at its end only."""

    async def body() -> Any:
        yield b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        for _ in range(BODY_LIMIT // 2**16 + 1):
            yield b"x" * 2**16
        yield b"\r\n--b--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = await paint.edit(body(), 413, headers=headers)
    assert answer["error"]["code"] == "body_too_large"


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b'{"prompt": "x"}'),
        ("application/x-www-form-urlencoded", b"prompt=x"),
        ("multipart/mixed; boundary=b", b"--b--"),
        ("multipart/form-data", b"--b--"),
        ("multipart/form-data; boundary=b", b""),
        ("multipart/form-data; boundary=b", b"nonsense"),
        ("multipart/form-data; boundary=b", b"--b--\r\n"),
        ("multipart/form-data; boundary=b", b"--b\r\n\r\nx\r\n--b--\r\n"),
        ("multipart/form-data; boundary=b", b"--b\r\nno header\r\n\r\nx\r\n--b--\r\n"),
        ("multipart/form-data; boundary=b",
         b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\nabc'),
        ("multipart/form-data; boundary=b",
         b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n\xff\r\n--b--\r\n'),
        (f"multipart/form-data; boundary={'b' * 100}", b"--b--"),
    ],
)  # fmt: skip
async def test_bodies_that_are_no_forms(paint: Studio, content_type: str, body: bytes):
    answer = await paint.edit(body, 400, headers={"Content-Type": content_type})
    assert answer["error"]["type"] == "invalid_request_error"


async def test_forms_that_say_a_thing_twice(paint: Studio):
    twice = form(PNG)
    twice.add_field("prompt", "again")
    assert "twice" in message(await paint.edit(twice, 400), "prompt")
    with MultipartWriter("form-data") as nested, MultipartWriter("mixed") as inner:
        inner.append("x")
        nested.append(inner).set_content_disposition("form-data", name="image")
    answer = await paint.edit(nested, 400)
    assert answer["error"]["type"] == "invalid_request_error"


async def test_a_form_without_an_image(paint: Studio):
    assert "no image" in message(await paint.edit(form(), 400), "image")


async def test_a_file_that_is_a_field(paint: Studio):
    data = FormData(default_to_multipart=True)
    data.add_field("image", io.BytesIO(PNG), filename="a.png")
    data.add_field("prompt", b"\x89PNG\xff", filename="b.png")
    data.add_field("model", "can-all")
    assert "UTF-8" in message(await paint.edit(data, 400), "prompt")
