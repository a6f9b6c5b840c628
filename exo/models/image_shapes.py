"""Whether the tensors of an image model's component are the ones its code needs: pure.

The names and shapes are those of `image_names.json`, which `tools/image_names.py` makes. In mflux's
layout a tensor has the very name and shape of the code's parameter, or is packed; in the hub's it
has another name, and its axes may be in another order.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import Any, Literal, NamedTuple

from exo.models.safetensors import Entry

_FILE = Path(__file__).with_name("image_names.json")
_BITS = {2, 3, 4, 5, 6, 8}
_GROUPS = {32, 64, 128}

Layout = Literal["mflux", "hub"]


class Packing(NamedTuple):
    """How a quantised tensor is packed."""

    bits: int
    group: int


@dataclass(frozen=True)
class Wanted:
    """What a component of a model must have.

    `sizes` stands for the letters in shapes, `lengths` for the lists that may have another length
    than the table's; `unsized` says that only the number of axes is known. Tensors whose names
    begin with one of `without` need not be there.
    """

    table: Mapping[str, Any]
    sizes: Mapping[str, int]
    lengths: Mapping[str, int]
    unsized: bool = False
    without: tuple[str, ...] = ()

    def length(self, head: str) -> int:
        return self.lengths.get(head, self.table["lists"].get(head, 0))


@cache
def image_names() -> dict[str, dict[str, Any]]:
    """The table, by family and component."""
    return json.loads(_FILE.read_text("utf-8"))


def why_not(wanted: Wanted, tensors: Mapping[str, Entry], layout: Layout) -> str | None:
    """What is wrong with these tensors, None if nothing is."""
    for head in wanted.table["lists"]:
        found, length = count(tensors, head), wanted.length(head)
        if layout == "mflux" and found > length:
            return f"{head} has {found} parts where the model's code has {length}"
    for name, axes, hub in _wanted_tensors(wanted):
        names = (name,) if layout == "mflux" else hub
        entry = next((tensors[each] for each in names if each in tensors), None)
        if entry is None:
            return f"the tensor {names[0]} is missing"
        reason = _wrong_shape(name, entry, axes, tensors, layout, unsized=wanted.unsized)
        if reason:
            return reason
    return None


def count(tensors: Mapping[str, Entry], head: str) -> int:
    """How many parts the list of that name has, up to the first that is missing."""
    start = f"{head}."
    found = {name[len(start) :].partition(".")[0] for name in tensors if name.startswith(start)}
    length = 0
    while str(length) in found:
        length += 1
    return length


def packing(name: str, tensors: Mapping[str, Entry], columns: int) -> Packing | None:
    """How the weight of that name is packed that has so many columns; None if it is not."""
    entry, scales = tensors.get(name), tensors.get(f"{name.removesuffix('.weight')}.scales")
    if entry is None or scales is None or entry.dtype != "U32" or not scales.shape[-1]:
        return None
    return Packing(entry.shape[-1] * 32 // columns, columns // scales.shape[-1])


def size_of(expression: int | str, sizes: Mapping[str, int]) -> int:
    """`3*D+2*M` with the sizes that stand for the letters."""
    if isinstance(expression, int):
        return expression
    terms = (re.fullmatch(r"(?:(\d+)\*)?([A-Z])", term) for term in expression.split("+"))
    return sum(int(match[1] or 1) * sizes[match[2]] for match in terms if match)


def parameters(wanted: Wanted) -> int:
    """How many numbers the component has."""
    return sum(prod(axes) for _, axes, _ in _wanted_tensors(wanted))


def _wanted_tensors(wanted: Wanted) -> Iterator[tuple[str, tuple[int, ...], tuple[str, ...]]]:
    """The name, the shape and the hub's names of every tensor that is read from a file."""
    for name, (shape, hub) in wanted.table["tensors"].items():
        if not hub or name.startswith(wanted.without):
            continue
        axes = tuple(size_of(axis, wanted.sizes) for axis in shape)
        if "*" not in name:
            yield name, axes, tuple(hub)
            continue
        for index in range(wanted.length(name.partition(".*.")[0])):
            part = str(index)
            yield name.replace("*", part), axes, tuple(each.replace("*", part) for each in hub)


def _wrong_shape(
    name: str,
    entry: Entry,
    axes: tuple[int, ...],
    tensors: Mapping[str, Entry],
    layout: Layout,
    *,
    unsized: bool,
) -> str | None:
    shape = entry.shape
    if unsized:
        fits = len(shape) == len(axes)
    elif layout == "hub":
        fits = sorted(n for n in shape if n != 1) == sorted(n for n in axes if n != 1)
    elif entry.dtype == "U32":
        columns = axes[-1]
        packed = packing(name, tensors, columns)
        if packed is None:
            return f"the tensor {name} is packed and has no scales"
        whole = entry.shape[-1] * 32 == packed.bits * columns
        fits = packed.bits in _BITS and packed.group in _GROUPS and whole
        fits = fits and shape[:-1] == axes[:-1]
    else:
        # What is loaded from the hub's layout and saved again keeps no axes of one.
        fits = [n for n in shape if n != 1] == [n for n in axes if n != 1]
    if fits:
        return None
    return f"the tensor {name} has the shape {list(shape)} where the model's code has {list(axes)}"
