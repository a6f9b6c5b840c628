"""A placement made of shares, whoever chose them: its memory, context and predicted speeds."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from exo.cluster.placement.cost import Links, Steps
from exo.cluster.placement.memory import Cast, Need, Sizes, casts, kv_dtype
from exo.cluster.placement.wanted import NodeResources, Wanted
from exo.cluster.state import InstanceMeta, LinkInfo, Placement, Shard, Sharding
from exo.errors import PlacementImpossible
from exo.models.card import ModelCard

# Longer contexts are had by asking for them: they are paid for in memory whether used or not.
DEFAULT_CONTEXT = 32768
DEFAULT_CONCURRENCY = 32
# A context that is enough for most talk; with less, a model is of little use.
_ENOUGH_CONTEXT = 8192
_LEAST_CONTEXT = 512
# Tokens of a batch of an encoder's, where the device can make use of so many.
_BATCH = 2048
# One instance does not take all the memory that is free, so that others find some.
_KV_SHARE = 0.25


class Ask:
    """A model and what is asked for it, with what follows from them alone."""

    def __init__(self, card: ModelCard, wanted: Wanted, links: Iterable[LinkInfo]) -> None:
        self.card = card
        self.wanted = wanted
        self.links = Links(links, card)
        self.rows = wanted.concurrency or _rows(card)
        draft = wanted.draft.card if wanted.draft else None
        self.sizes = Sizes(card, self.rows, wanted.kv_bits, draft)
        self.steps = Steps(self.sizes)

    @property
    def least_context(self) -> int:
        """Tokens without which a model is of no use."""
        return self.wanted.context_length or min(self.card.context_length, _LEAST_CONTEXT)

    @property
    def contexts(self) -> list[int]:
        """The contexts to find room for, the best first."""
        if self.wanted.context_length is not None:
            return [self.wanted.context_length]
        steps = (DEFAULT_CONTEXT, _ENOUGH_CONTEXT, _LEAST_CONTEXT)
        return list(dict.fromkeys(min(self.card.context_length, step) for step in steps))


def _rows(card: ModelCard) -> int:
    """An encoder computes one batch after the other: more texts at once than fill one gain
    nothing."""
    return max(1, _BATCH // card.context_length) if card.encodes else DEFAULT_CONCURRENCY


@dataclass(frozen=True)
class Share:
    """The layers [start, end) for a node."""

    node: NodeResources
    start: int
    end: int


class Part(NamedTuple):
    """What a node computes of the layers [start, end), what that needs, and whether it is cast."""

    node: NodeResources
    start: int
    end: int
    need: Need
    cast: Cast


class Speeds(NamedTuple):
    """Seconds: per token of a long prompt; per token of one answer; of a step with all rows, on
    the slowest node."""

    prefill: float
    seconds: float
    slowest: float


@dataclass(frozen=True)
class Planned:
    """A placement, the seconds that a token takes in it, and those that a step with all rows takes
    on its slowest node; nodes that are not measured are guessed at. `roomy` says whether its
    context is what was asked for, or enough for most talk."""

    placement: Placement
    seconds: float
    slowest: float
    roomy: bool


def plan(ask: Ask, shares: Sequence[Share], tokens: int | None = None) -> Planned:
    """The placement with these shares in this order. Weights are cast where there is room for
    that and for `tokens` tokens of keys and values.

    Raises:
        PlacementImpossible: a share does not fit its node; the message has the numbers.
    """
    ways = [_cast(ask, share, tokens or ask.least_context) for share in shares]
    parts = [
        Part(each.node, each.start, each.end, ask.sizes.need(each.start, each.end, cast=cast), cast)
        for each, cast in zip(shares, ways, strict=True)
    ]
    meta = ask.wanted.instance_meta
    if meta is None:
        meta = InstanceMeta.LOCAL if len(shares) == 1 else InstanceMeta.TCP
    return arranged(ask, parts, _speeds(ask, shares, ways), Sharding.PIPELINE, meta)


def arranged(
    ask: Ask, parts: Sequence[Part], speeds: Speeds, sharding: Sharding, meta: InstanceMeta
) -> Planned:
    """The placement of parts that fit, with as much memory for keys and values as is fair."""
    card, wanted = ask.card, ask.wanted
    room = min((p.node.free_memory - p.need.bytes(0)) // p.need.per_token for p in parts)
    context = wanted.context_length or min(card.context_length, DEFAULT_CONTEXT, room)
    fair = min(int(p.node.free_memory * _KV_SHARE) // p.need.per_token for p in parts)
    kv_tokens = min(room, context * ask.rows, max(context, fair))
    measured = all(part.node.device is not None for part in parts)
    placement = Placement(
        model_id=card.model_id,
        sharding=sharding,
        instance_meta=meta,
        context_length=context,
        concurrency=ask.rows,
        kv_tokens=kv_tokens,
        shards=tuple(
            Shard(
                rank=rank,
                node_id=part.node.node_id,
                start_layer=part.start,
                end_layer=part.end,
                memory=part.need.bytes(kv_tokens),
                cast_float32=bool(part.cast),
                kv_dtype=kv_dtype(card, part.cast, wanted.kv_bits),
            )
            for rank, part in enumerate(parts)
        ),
        prefill_tps=1 / speeds.prefill if measured and speeds.prefill else None,
        decode_tps=1 / speeds.seconds if measured and speeds.seconds else None,
        kv_bits=wanted.kv_bits,
    )
    roomy = context >= min(_ENOUGH_CONTEXT, wanted.context_length or card.context_length)
    return Planned(placement, speeds.seconds, speeds.slowest, roomy)


def _cast(ask: Ask, share: Share, tokens: int) -> Cast:
    """What the node casts of its share.

    Raises:
        PlacementImpossible: it does not fit either way.
    """
    for cast in casts(ask.card, share.node):
        need = ask.sizes.need(share.start, share.end, cast=cast)
        if need.bytes(tokens) <= share.node.free_memory:
            return cast
    cast = casts(ask.card, share.node)[-1]
    raise does_not_fit(ask, share, ask.sizes.need(share.start, share.end, cast=cast))


def does_not_fit(ask: Ask, share: Share, need: Need) -> PlacementImpossible:
    whole = share.end - share.start == ask.card.n_layers
    what = "" if whole else f" for layers {share.start} to {share.end - 1}"
    return PlacementImpossible(
        f"{ask.card.model_id} needs {gib(need.bytes(ask.least_context))} on {share.node.name}"
        f"{what} and {gib(share.node.free_memory)} is free for it."
    )


def _speeds(ask: Ask, shares: Sequence[Share], ways: Sequence[Cast]) -> Speeds:
    """Of a pipeline. A long prompt flows through the stages in pieces."""
    prefill, seconds, slowest = 0.0, 0.0, 0.0
    for share, cast in zip(shares, ways, strict=True):
        spent = [_spent(ask, share, cast, rows) for rows in (1, ask.rows)]
        seconds += spent[0]
        slowest = max(slowest, spent[1])
        pace = ask.steps.prefill_seconds(share.node, share.start, share.end, cast=cast)
        prefill = max(prefill, pace)
    for one, other in pairwise(shares):
        seconds += ask.links.between(one.node, other.node)[0]
        prefill = max(prefill, ask.links.transfer(one.node, other.node))
    if len(shares) > 1:
        seconds += ask.links.between(shares[-1].node, shares[0].node)[1]
    return Speeds(prefill, seconds, slowest)


def _spent(ask: Ask, share: Share, cast: Cast, rows: int) -> float:
    layers, head = ask.steps.seconds(share.node, cast=cast, rows=rows)
    return sum(layers[share.start : share.end]) + (head if share.end == len(layers) else 0.0)


def gib(size: int) -> str:
    return f"{max(size, 0) / 2**30:.2f} GiB"
