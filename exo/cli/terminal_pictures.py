"""Pictures in a terminal: which way of showing them it knows, and the bytes that do it. Pure.

kitty    https://sw.kovidgoyal.net/kitty/graphics-protocol/
iterm    https://iterm2.com/documentation-images.html
sixel    https://vt100.net/docs/vt3xx-gp/chapter14.html
blocks   text: two pixels in each character, the upper half block on a background
"""

import base64
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image


class Show(StrEnum):
    """How pictures are shown in the terminal."""

    auto = "auto"
    kitty = "kitty"
    iterm = "iterm"
    sixel = "sixel"
    blocks = "blocks"
    none = "none"


@dataclass(frozen=True)
class Room:
    """Where a picture goes: at most so many characters; `cell` is one's width and height in
    pixels, `true_color` whether it can have any colour."""

    columns: int
    rows: int
    cell: tuple[int, int] = (10, 20)
    true_color: bool = True


_KITTY_PROGRAMS = {"ghostty", "kitty"}
_ITERM_PROGRAMS = {"iTerm.app", "WezTerm", "mintty"}
_SIXEL_TERMS = ("foot", "mlterm", "contour", "yaft", "sixel")
_KITTY_CHUNK = 4096
_SIXEL_COLORS = 128
# Kitty replaces a picture by the next one of the same number.
_KITTY_ID = 4242


def detect(env: Mapping[str, str]) -> Show:
    """What the terminal of this environment can show; text where nothing else is sure."""
    term = env.get("TERM", "")
    program = env.get("TERM_PROGRAM", "")
    if "TMUX" in env or term.startswith(("screen", "tmux")):
        return Show.blocks  # They do not pass pictures on.
    if term == "xterm-kitty" or "KITTY_WINDOW_ID" in env or program in _KITTY_PROGRAMS:
        return Show.kitty
    if program in _ITERM_PROGRAMS or env.get("LC_TERMINAL") == "iTerm2":
        return Show.iterm
    if term.startswith(_SIXEL_TERMS) or "sixel" in term:
        return Show.sixel
    return Show.blocks


def render(data: bytes, show: Show, room: Room) -> tuple[str, int]:
    """What draws the picture in `data` from the cursor on, which it leaves where it is or below
    the picture, and how many rows it takes."""
    picture = _decoded(data)
    columns, rows = _cells(picture.size, room)
    match show:
        case Show.kitty:
            return kitty(_png(picture, (columns, rows), room), columns, rows), rows
        case Show.iterm:
            return iterm(_png(picture, (columns, rows), room), columns, rows), rows
        case Show.sixel:
            pixels = picture.resize((columns * room.cell[0], rows * room.cell[1]))
            return sixel(pixels), rows
        case Show.blocks:
            pixels = picture.resize((columns, rows * 2))
            return blocks(pixels, true_color=room.true_color), rows
        case _:
            return "", 0


def kitty(png: bytes, columns: int, rows: int) -> str:
    """The picture in so many cells; the cursor stays."""
    text = base64.b64encode(png).decode("ascii")
    chunks = [text[i : i + _KITTY_CHUNK] for i in range(0, len(text), _KITTY_CHUNK)]
    head = f"a=T,f=100,q=2,C=1,i={_KITTY_ID},p=1,c={columns},r={rows},"
    written: list[str] = []
    for number, chunk in enumerate(chunks, start=1):
        more = int(number < len(chunks))
        written.append(f"\x1b_G{head if number == 1 else ''}m={more};{chunk}\x1b\\")
    return "".join(written)


def iterm(png: bytes, columns: int, rows: int) -> str:
    """The picture in so many cells; the cursor goes below it."""
    text = base64.b64encode(png).decode("ascii")
    size = f"size={len(png)};width={columns};height={rows};preserveAspectRatio=0"
    return f"\x1b]1337;File=inline=1;{size}:{text}\x07"


def sixel(picture: "Image.Image") -> str:
    """The picture, pixel by pixel; the cursor goes below it."""
    width, height = picture.size
    indexed = picture.quantize(_SIXEL_COLORS)
    palette = indexed.getpalette() or []
    written = [f'\x1bPq"1;1;{width};{height}']
    for number in range(len(palette) // 3):
        red, green, blue = (round(value * 100 / 255) for value in palette[number * 3 :][:3])
        written.append(f"#{number};2;{red};{green};{blue}")
    pixels = indexed.tobytes()
    written += [
        _sixel_band(pixels[top * width : (top + 6) * width], width) for top in range(0, height, 6)
    ]
    return "".join([*written, "\x1b\\"])


def _sixel_band(pixels: bytes, width: int) -> str:
    """Up to six rows: for each colour, which of the six it has in every column."""
    masks: dict[int, bytearray] = {}
    for place, color in enumerate(pixels):
        row, column = divmod(place, width)
        masks.setdefault(color, bytearray(b"?" * width))[column] += 1 << row
    lines = [f"#{color}{_packed(mask.decode('ascii'))}" for color, mask in masks.items()]
    return "$".join(lines) + "-"


def _packed(line: str) -> str:
    return re.sub(r"(.)\1{3,}", lambda run: f"!{len(run[0])}{run[1]}", line)


def blocks(picture: "Image.Image", *, true_color: bool) -> str:
    """The picture as text, two of its rows in a line; the cursor goes below it."""
    width, height = picture.size
    data = picture.tobytes()
    pixels = [(data[i], data[i + 1], data[i + 2]) for i in range(0, len(data), 3)]
    paint = _true if true_color else _of_256
    lines: list[str] = []
    for top in range(0, height, 2):
        upper = pixels[top * width : (top + 1) * width]
        lower = pixels[(top + 1) * width : (top + 2) * width]
        pairs = groupby(zip(upper, lower, strict=True))
        line = "".join(
            f"\x1b[38;{paint(up)};48;{paint(low)}m" + "▀" * len(list(run))
            for (up, low), run in pairs
        )
        lines.append(f"{line}\x1b[0m\n")
    return "".join(lines)


def _true(color: tuple[int, int, int]) -> str:
    return f"2;{color[0]};{color[1]};{color[2]}"


def _of_256(color: tuple[int, int, int]) -> str:
    """The nearest of the colour cube of 6 by 6 by 6."""
    red, green, blue = (round(value / 51) for value in color)
    return f"5;{16 + 36 * red + 6 * green + blue}"


def _cells(size: tuple[int, int], room: Room) -> tuple[int, int]:
    """The columns and rows of a picture of that size, as large as the room lets it be."""
    width, height = size[0] / room.cell[0], size[1] / room.cell[1]
    scale = min(room.columns / width, room.rows / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _decoded(data: bytes) -> "Image.Image":
    from PIL import Image  # noqa: PLC0415  for those who look at pictures only

    with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as picture:
        return picture.convert("RGB")


def _png(picture: "Image.Image", cells: tuple[int, int], room: Room) -> bytes:
    """No larger than it is shown: a terminal may be far away."""
    size = (cells[0] * room.cell[0] * 2, cells[1] * room.cell[1] * 2)
    small = picture.copy()
    small.thumbnail(size)
    file = io.BytesIO()
    small.save(file, "PNG")
    return file.getvalue()
