"""How a model can be split over several stages."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
from mlx import nn

from exo.errors import ModelInvalid
from exo.inference.mlx.exchange import Path

Size = int | str | None


@dataclass(frozen=True)
class Leaf:
    """An array that a layer leaves: see `exchange`."""

    layer: int
    path: Path


@dataclass(frozen=True)
class Shape:
    """`sizes` are numbers, `"B"` for the sequences, `"L"` for their tokens, None for what grows
    with what came before."""

    sizes: tuple[Size, ...]
    dtype: mx.Dtype

    def zeros(self, rows: int, length: int) -> mx.array:
        known = {"B": rows, "L": length, None: 1}
        sizes = [size if isinstance(size, int) else known[size] for size in self.sizes]
        return mx.zeros(sizes, dtype=self.dtype)

    @property
    def can_travel(self) -> bool:
        """Not keys and values, which would have to be sent whole with each token."""
        return None not in self.sizes or not mx.issubdtype(self.dtype, mx.floating)


class Shapes:
    """Shapes as they are seen at different numbers of sequences and tokens."""

    def __init__(self) -> None:
        self._seen: dict[Leaf, list[tuple[tuple[int, int], mx.array]]] = {}
        self._unknown: set[Leaf] = set()

    def unknown(self, leaf: Leaf) -> None:
        """There was nothing where an array may be."""
        self._unknown.add(leaf)

    def add(self, leaf: Leaf, size: tuple[int, int], array: mx.array) -> None:
        self._seen.setdefault(leaf, []).append((size, array))

    def of(self, leaf: Leaf) -> Shape:
        """The shape, with what its sizes follow as far as is known."""
        seen = self._seen[leaf]
        shapes = [array.shape for _, array in seen]
        dtype = seen[0][1].dtype
        if len({len(shape) for shape in shapes}) > 1:
            return Shape((None,), dtype)
        rows, lengths = zip(*(size for size, _ in seen), strict=True)
        sizes: list[Size] = []
        for column in zip(*shapes, strict=True):
            if column == rows:
                sizes.append("B")
            elif column == lengths:
                sizes.append("L")
            else:
                sizes.append(column[0] if len(set(column)) == 1 else None)
        return Shape(tuple(sizes), dtype)


@dataclass
class SplitPlan:
    """What was learned of a model.

    `users` has the layers that use each cache, by the number of the cache; `watched` are the caches
    that the code outside of the layers reads, `kept` those that only this code writes; `forms` how
    each layer's result is built; `shapes` what each layer leaves, `last_use` which is the last
    layer to need it; `needs` the weights outside of the layers that each layer's computation reads.
    The layer `n_layers` stands for all that comes after the last one.
    """

    architecture: str
    n_layers: int
    users: dict[int, set[int]] = field(default_factory=dict[int, set[int]])
    watched: set[int] = field(default_factory=set[int])
    kept: set[int] = field(default_factory=set[int])
    forms: list[Any] = field(default_factory=list[Any])
    shapes: dict[Leaf, Shape] = field(default_factory=dict[Leaf, Shape])
    last_use: dict[Leaf, int] = field(default_factory=dict[Leaf, int])
    needs: dict[int, set[str]] = field(default_factory=dict[int, set[str]])

    def use(self, leaf: Leaf, layer: int) -> None:
        self.last_use[leaf] = max(layer, self.last_use.get(leaf, 0))

    def need(self, weight: str, layer: int) -> None:
        self.needs.setdefault(layer, set()).add(weight)

    def needed(self, layers: Iterable[int]) -> set[str]:
        """The names of the weights outside of the layers that these need."""
        return {name for layer in layers for name in self.needs.get(layer, ())}

    @property
    def valid_cuts(self) -> frozenset[int]:
        """Where the list of layers may be cut: c parts [0, c) from [c, n)."""
        return frozenset(cut for cut in range(1, self.n_layers) if self.obstacle(cut) is None)

    def obstacle(self, cut: int) -> str | None:
        """Why the layers cannot be cut there, or None."""
        for layers in self.users.values():
            if layers and min(layers) < cut <= max(layers):
                return f"layers {min(layers)} and {max(layers)} share keys and values"
        for leaf in self.travelling(cut):
            shape = self.shapes.get(leaf)
            if shape is None or not shape.can_travel:
                return f"layer {self.last_use[leaf]} needs all that layer {leaf.layer} kept"
        return None

    def travelling(self, cut: int) -> list[Leaf]:
        """What has to travel over a cut, the latest layer's first."""
        crossing = [leaf for leaf, last in self.last_use.items() if leaf.layer < cut <= last]
        order = list(self.shapes)
        known = {leaf: at for at, leaf in enumerate(order)}
        return sorted(crossing, key=lambda leaf: (-leaf.layer, known.get(leaf, -1)))

    def refusal(self, reason: str) -> ModelInvalid:
        return ModelInvalid(
            f"A model of this architecture ({self.architecture}) cannot be split over nodes: of "
            f"its layers, {reason}.",
            hint="Place it on one node.",
        )


def kind_of(model: nn.Module) -> str:
    """The name of the architecture."""
    return str(getattr(model, "model_type", type(model).__module__))
