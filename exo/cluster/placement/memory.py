"""The bytes that a share of a model's layers needs: pure.

    weights (as they are in memory, so after a cast to float32) + KV cache + working space

The first share has the embedding, the last one the norm and the head. Half precision doubles when
it becomes float32; quantised weights stay as they are, and where the CPU kernels compute, keys and
values do.
"""

from bisect import bisect_left
from collections.abc import Sequence
from enum import IntEnum
from itertools import accumulate, pairwise
from typing import Literal, NamedTuple

from exo.cluster.placement.wanted import NodeResources
from exo.models.card import ModelCard
from exo.models.weights import Part

_WORKING_BYTES = 64 * 1024 * 1024
# What the size of a head is a multiple of where the kernels compute its attention.
_KERNEL_HEADS = 16
# Architectures that compute attention, or prepare keys for it, by other means than the kernels.
_OWN_ATTENTION = frozenset({"gemma2", "stablelm"})


class Cast(IntEnum):
    """What of half precision becomes float32 on a node: nothing, everything, or all but the
    weights, which the CPU kernels read as they are."""

    NOTHING = 0
    EVERYTHING = 1
    ALL_BUT_WEIGHTS = 2


class Need(NamedTuple):
    """Bytes: `per_token` of keys and values."""

    weights: int
    working: int
    per_token: int

    def bytes(self, tokens: int) -> int:
        return self.weights + self.working + tokens * self.per_token


class Sizes:
    """The memory of every share [start, end) of a model, for so many rows in one step. Its keys
    and values may be quantised; the first share has the whole draft model beside it."""

    def __init__(
        self,
        card: ModelCard,
        rows: int,
        kv_bits: int | None = None,
        draft: ModelCard | None = None,
    ) -> None:
        parts = card.parts
        self.card = card
        self.n_layers = card.n_layers
        self._layers = tuple(
            [0, *accumulate(_loaded(part, card, cast=cast) for part in parts.layers)]
            for cast in Cast
        )
        self._embedding, self._head, self._shared = (
            tuple(_loaded(part, card, cast=cast) for cast in Cast)
            for part in (parts.embedding, parts.head, parts.shared)
        )
        self._tied = parts.tied
        # Keys and values of one token in all layers.
        self._kv = tuple(
            card.kv_bytes_per_token(kv_element(card, cast, kv_bits), kv_bits) for cast in Cast
        )
        self._drafting = tuple(_drafting(draft, cast) for cast in Cast)
        # Activations and logits of one step, in float32, with their temporary copies.
        self._working = _WORKING_BYTES + 3 * 4 * rows * card.hidden_size
        self._logits = 3 * 4 * rows * card.vocab_size

    def need(self, start: int, end: int, *, cast: Cast) -> Need:
        last = end == self.n_layers
        weights = self._layers[cast][end] - self._layers[cast][start] + self._shared[cast]
        if start == 0 or (last and self._tied):
            weights += self._embedding[cast]
        if last:
            weights += self._head[cast]
        working = self._working + (self._logits if last else 0)
        per_token = self._kv[cast] // self.n_layers * (end - start)
        if start == 0:
            drafting = self._drafting[cast]
            weights, per_token = weights + drafting.weights, per_token + drafting.per_token
        return Need(weights, working, per_token)

    def begins(self, boundaries: Sequence[int], tokens: int, free: int, *, cast: Cast) -> list[int]:
        """For each boundary the index of the first at which a share may begin that ends there and
        fits into `free` bytes, with so many tokens of keys and values; its own, if none does."""
        layers, per_token = self._layers[cast], self._kv[cast] // self.n_layers * tokens
        held = [layers[boundary] + per_token * boundary for boundary in boundaries]

        def beside(end: int) -> tuple[int, int]:
            """Bytes of a share but for its layers: of the first, and of another."""
            first = self.need(0, end, cast=cast).bytes(tokens) - layers[end] - per_token * end
            return first, self.need(end, end, cast=cast).bytes(tokens)

        within, at_end = beside(boundaries[1]), beside(self.n_layers)
        least, found = 0, [0]
        for place, end in enumerate(boundaries[1:], 1):
            first, other = at_end if end == self.n_layers else within
            least = bisect_left(held, held[place] + other - free, least, place)
            if least == 0 and held[place] + first > free:
                least = 1
            found.append(least)
        return found

    def equal_part(self, nodes: int, *, cast: Cast) -> Need:
        """What each of so many nodes needs that have an equal part of every layer: the embedding
        and the head too, and while it loads one layer as a whole. Any of them may be rank 0, which
        has the draft model."""
        layers = self._layers[cast]
        largest = max(end - start for start, end in pairwise(layers))
        weights = -(-layers[-1] // nodes) + self._shared[cast]
        weights += self._embedding[cast] + self._head[cast]
        per_token = self._kv[cast]
        if not (self.card.shares and self.card.shares.latent):
            per_token = -(-per_token // nodes)
        drafting = self._drafting[cast]
        working = self._working + self._logits + largest
        return Need(weights + drafting.weights, working, per_token + drafting.per_token)

    def layer(self, index: int, *, cast: Cast) -> int:
        """Bytes of one layer in memory."""
        return self._layers[cast][index + 1] - self._layers[cast][index]

    def head(self, *, cast: Cast) -> int:
        """Bytes that are read to make logits."""
        return self._head[cast] + (self._embedding[cast] if self._tied else 0)


def casts(card: ModelCard, node: NodeResources) -> tuple[Cast, ...]:
    """What a node may cast to float32, the better way first.

    Half precision accumulates badly and slowly in MLX's CPU kernels; packed weights are only exact
    with float32 scales there, whatever that costs.
    """
    if not node.on_cpu:
        return (Cast.NOTHING,)
    if node.device is not None and node.device.kernels:
        return (Cast.ALL_BUT_WEIGHTS,)
    if card.quantization is not None:
        return (Cast.EVERYTHING,)
    return (Cast.EVERYTHING, Cast.NOTHING)


def kv_dtype(
    card: ModelCard, cast: Cast, kv_bits: int | None
) -> Literal["", "float16", "bfloat16"]:
    """The type that keys and values are held in where the rest becomes float32; empty where they
    are held as they are computed. A latent form of them does not go into attention as it is."""
    latent = card.shares is not None and card.shares.latent
    if card.encodes or latent or card.architecture in _OWN_ATTENTION:
        return ""
    if cast is not Cast.ALL_BUT_WEIGHTS or kv_bits or card.head_dim % _KERNEL_HEADS:
        return ""
    match card.dtype:
        case "float16" | "bfloat16":
            return card.dtype
        case _:
            return ""


def kv_element(card: ModelCard, cast: Cast, kv_bits: int | None) -> int:
    """Bytes of a number in keys and values; of a scale in them, if they are quantised."""
    wide = card.dtype == "float32" or (cast and not kv_dtype(card, cast, kv_bits))
    return 4 if wide else 2


def _drafting(draft: ModelCard | None, cast: Cast) -> Need:
    """What the draft model needs, if there is one."""
    if draft is None:
        return Need(0, 0, 0)
    whole = Part(total=draft.storage_size, packed=draft.packed_size)
    element = 4 if cast or draft.dtype == "float32" else 2
    return Need(_loaded(whole, draft, cast=cast), 0, draft.kv_bytes_per_token(element))


def _loaded(part: Part, card: ModelCard, *, cast: Cast) -> int:
    loose, packed = part.total - part.packed, part.packed
    wide = card.quantization is not None and card.quantization.mode == "mxfp8"
    if wide and cast is Cast.ALL_BUT_WEIGHTS:
        packed *= 2  # The kernels hold its numbers in bfloat16.
    return packed + (loose * 2 if cast is Cast.EVERYTHING and card.dtype != "float32" else loose)
