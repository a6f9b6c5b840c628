"""Where the bytes of a model lie: in which layer, in the embedding, in the head."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

# The first number in a tensor's name is the layer's: `model.layers.12.mlp.experts.3.w1`.
_NUMBERED = re.compile(r"(.*?)\.(\d+)\.")
_HEAD_WORDS = ("lm_head", "norm", "output", "ln_f")


class Tensor(NamedTuple):
    """A tensor of a file: its bytes, and whether they are packed."""

    name: str
    size: int
    packed: bool


class Part(BaseModel):
    """Bytes as stored; `packed` of them are quantised and stay as they are when the rest is
    cast."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    total: int
    packed: int = 0

    def __add__(self, other: "Part") -> "Part":
        return Part(total=self.total + other.total, packed=self.packed + other.packed)


class Weights(BaseModel):
    """The parts of a model.

    `layers` has one part for each layer, or a single one where all are alike. `shared` is needed
    wherever there is a layer. With `tied`, the last layers need the embedding as well.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: tuple[Part, ...]
    embedding: Part
    head: Part = Part(total=0)
    shared: Part = Part(total=0)
    tied: bool = False


def weights_of(tensors: Iterable[Tensor], n_layers: int, *, tied: bool) -> Weights | None:
    """The parts that these tensors make up; None if no list of so many layers is among them.

    What lies past the list (layers for speculative decoding) is counted with the last layer, and
    what is of no known place with the embedding, so that no byte is left out.
    """
    lists: dict[str, dict[int, Part]] = {}
    loose: list[Tensor] = []
    for tensor in tensors:
        if match := _NUMBERED.match(tensor.name):
            parts = lists.setdefault(match[1], {})
            index = min(int(match[2]), n_layers - 1)
            parts[index] = parts.get(index, Part(total=0)) + _part(tensor)
        else:
            loose.append(tensor)
    whole = [name for name, parts in lists.items() if len(parts) == n_layers]
    if not whole:
        return None
    name = max(whole, key=lambda name: sum(part.total for part in lists[name].values()))
    layers = [part for _, part in sorted(lists.pop(name).items())]
    places = {"embedding": Part(total=0), "head": Part(total=0), "shared": Part(total=0)}
    for tensor in loose:
        place = _place(tensor.name)
        places[place] = places[place] + _part(tensor)
    for parts in lists.values():
        places["embedding"] = sum(parts.values(), places["embedding"])
    # A norm alone is no head: that is the embedding then, whatever the configuration says.
    tied = tied or places["head"].total < places["embedding"].total // 4
    alike = len(set(layers)) == 1
    return Weights(layers=tuple(layers[:1] if alike else layers), tied=tied, **places)


def _part(tensor: Tensor) -> Part:
    return Part(total=tensor.size, packed=tensor.size if tensor.packed else 0)


def _place(name: str) -> str:
    if "per_layer" in name:
        return "shared"
    if "embed" in name or "wte" in name:
        return "embedding"
    return "head" if any(word in name for word in _HEAD_WORDS) else "embedding"
