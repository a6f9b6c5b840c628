"""What is sent to terminals, read back as they would."""

import base64
import io
import re

import pytest
from PIL import Image

from exo.cli.terminal_pictures import Room, Show, detect, render, sixel

ROOM = Room(columns=40, rows=10)
RED, BLUE = (255, 0, 0), (0, 0, 255)


def picture(size: tuple[int, int] = (64, 64)) -> Image.Image:
    """Red above blue."""
    made = Image.new("RGB", size, RED)
    made.paste(BLUE, (0, size[1] // 2, *size))
    return made


def file_of(made: Image.Image, form: str = "PNG") -> bytes:
    file = io.BytesIO()
    made.save(file, form)
    return file.getvalue()


@pytest.mark.parametrize(
    ("env", "show"),
    [
        ({"TERM": "xterm-kitty"}, Show.kitty),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, Show.kitty),
        ({"TERM_PROGRAM": "ghostty"}, Show.kitty),
        ({"TERM_PROGRAM": "iTerm.app"}, Show.iterm),
        ({"TERM_PROGRAM": "WezTerm"}, Show.iterm),
        ({"LC_TERMINAL": "iTerm2"}, Show.iterm),
        ({"TERM": "foot"}, Show.sixel),
        ({"TERM": "xterm-sixel"}, Show.sixel),
        ({"TERM": "xterm-256color"}, Show.blocks),
        ({"TERM": "xterm-kitty", "TMUX": "x"}, Show.blocks),
        ({"TERM": "screen", "LC_TERMINAL": "iTerm2"}, Show.blocks),
        ({}, Show.blocks),
    ],
)
def test_detection(env: dict[str, str], show: Show):
    assert detect(env) is show


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_kitty_gets_a_png_in_chunks(form: str):
    noise = Image.effect_noise((400, 400), 90).convert("RGB")
    text, rows = render(file_of(noise, form), Show.kitty, ROOM)
    chunks = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", text)
    assert "".join(f"\x1b_G{keys};{data}\x1b\\" for keys, data in chunks) == text
    assert len(chunks) > 1
    assert all(len(data) <= 4096 for _, data in chunks)
    assert [keys.endswith("m=1") for keys, _ in chunks] == [True] * (len(chunks) - 1) + [False]
    assert f"c=20,r={rows}" in chunks[0][0]
    sent = Image.open(io.BytesIO(base64.b64decode("".join(data for _, data in chunks))))
    assert (sent.format, rows) == ("PNG", 10)


def test_iterm_gets_a_file():
    text, rows = render(file_of(picture()), Show.iterm, ROOM)
    head = r"\x1b]1337;File=inline=1;size=(\d+);width=20;height=(\d+);[^:]*:"
    found = re.fullmatch(head + r"(.*)\x07", text)
    assert found
    data = base64.b64decode(found[3])
    assert (int(found[1]), int(found[2])) == (len(data), rows)
    assert Image.open(io.BytesIO(data)).size == (64, 64)


def test_sixels_are_the_picture():
    made = picture((10, 15))
    assert drawn(sixel(made)) == list(made.get_flattened_data())


def drawn(text: str) -> list[tuple[int, int, int]]:
    """The pixels, by the rules of sixels."""
    head = re.match(r'\x1bPq"1;1;(\d+);(\d+)', text)
    assert head
    width, height = int(head[1]), int(head[2])
    pixels: dict[tuple[int, int], tuple[int, int, int]] = {}
    palette: dict[int, tuple[int, int, int]] = {}
    x = y = color = 0
    tokens = re.findall(r"#\d+(?:;2;\d+;\d+;\d+)?|!\d+.|\$|-|[?-~]", text[head.end() : -2])
    for token in tokens:
        if token[0] == "#":
            number, *rest = map(int, token[1:].split(";"))
            if rest:
                palette[number] = tuple(round(v * 255 / 100) for v in rest[1:])
            else:
                color = number
        elif token == "$":
            x = 0
        elif token == "-":
            x, y = 0, y + 6
        else:
            times = int(token[1:-1]) if token[0] == "!" else 1
            bits = ord(token[-1]) - 63
            for column in range(x, x + times):
                for row in range(6):
                    if bits >> row & 1:
                        pixels[column, y + row] = palette[color]
            x += times
    return [pixels[x, y] for y in range(height) for x in range(width)]


def test_blocks_have_two_pixels_each():
    text, rows = render(file_of(picture()), Show.blocks, ROOM)
    lines = text.split("\n")[:-1]
    assert len(lines) == rows == 10
    assert all(line.count("▀") == 20 for line in lines)
    assert lines[0].startswith("\x1b[38;2;255;0;0;48;2;255;0;0m▀")
    assert lines[-1].startswith("\x1b[38;2;0;0;255;48;2;0;0;255m▀")
    assert all(line.endswith("\x1b[0m") for line in lines), "what follows has its own colours"


def test_blocks_where_there_are_256_colours():
    text, _ = render(file_of(picture()), Show.blocks, Room(40, 10, true_color=False))
    assert "38;5;196;48;5;196m" in text
    assert "38;5;21;48;5;21m" in text
    assert "8;2;" not in text


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (2000, 1000), (33, 77)])
@pytest.mark.parametrize("show", [Show.kitty, Show.iterm, Show.sixel, Show.blocks])
def test_any_shape_stays_within_its_room(size: tuple[int, int], show: Show):
    text, rows = render(file_of(picture(size)), show, ROOM)
    assert text
    assert 1 <= rows <= ROOM.rows
