"""The best split by tensors over each number of nodes: all have an equal part of every layer.

A step takes as long as the slowest node computes its part, and twice in each layer what all have
computed is summed up, over a ring: each node sends to the next one 2·(n - 1) times, and all wait
for the slowest link. So what is looked for is n nodes that are fast and near to each other. It is
exact for a few nodes, and bounded beyond.
"""

from collections.abc import Iterable, Sequence
from itertools import combinations, pairwise, permutations
from typing import NamedTuple

from exo.cluster.placement.cost import Paces, Peers
from exo.cluster.placement.memory import Cast, Need, casts
from exo.cluster.placement.plan import Ask, Part, Planned, Speeds, arranged, gib
from exo.cluster.placement.wanted import NodeResources
from exo.cluster.state import InstanceMeta, Sharding
from exo.errors import PlacementImpossible

# The work grows with the factorial.
_FEW = 6
# Of many nodes, from so many the search for near ones begins.
_SEEDS = 8
# How often a node is exchanged at most.
_ROUNDS = 4
# How many numbers of nodes are looked at one by one, also where they do not divide the layers.
_CLOSELY = 7


def tensors(
    ask: Ask, nodes: Sequence[NodeResources], least: int, most: int
) -> dict[int, Planned | PlacementImpossible]:
    """By the number of nodes, from `least` to `most`: the best split by tensors, or why there is
    none. Of many numbers that do not divide the layers, some are left out."""
    found: dict[int, Planned | PlacementImpossible] = {}
    nodes = sorted(nodes, key=lambda node: node.node_id)
    crowds = _crowds(ask, nodes)
    for size in range(least, most + 1):
        obstacle = ask.card.shares.obstacle(size) if ask.card.shares else "it is of another kind"
        if obstacle is None:
            found[size] = _best(ask, crowds, nodes, size)
        elif size < least + _CLOSELY:
            found[size] = PlacementImpossible(
                f"{ask.card.model_id} cannot be split by tensors over {size} nodes: {obstacle}.",
                param="min_nodes",
            )
    return found


def _meta(ask: Ask, nodes: Iterable[NodeResources]) -> InstanceMeta:
    """What carries the sums: what was asked for, or what suits the nodes."""
    if ask.wanted.instance_meta is not None:
        return ask.wanted.instance_meta
    cuda = all(node.device is not None and node.device.kind == "cuda" for node in nodes)
    return InstanceMeta.MLX_NCCL if cuda else InstanceMeta.MLX_RING


def _best(
    ask: Ask, crowds: Sequence[Peers], nodes: Sequence[NodeResources], size: int
) -> Planned | PlacementImpossible:
    """With the longest usual context that there is room for."""
    for context in ask.contexts:
        teams: list[_Team] = []
        for peers in crowds:
            pool = _holding(ask, peers, size, context)
            # Half precision on a CPU is for want of memory only.
            if len(pool) >= size and not (teams and _has_cpu(peers)):
                teams.append(_team(ask, peers, pool, size))
        if teams:
            return _planned(ask, min(teams, key=lambda team: team.speeds.seconds))
    return _no_room(ask, nodes, size)


def _crowds(ask: Ask, nodes: Sequence[NodeResources]) -> list[Peers]:
    """All ranks of a group compute in one dtype. Nodes that could do so together: in float32, if
    one of them is a CPU, which prefers that; in the model's own, without CPUs and with them."""
    gpus = [node for node in nodes if not node.on_cpu]
    if len(gpus) == len(nodes):
        return [_crowd(ask, gpus, float32=False)]
    able = [node for node in nodes if Cast.NOTHING in casts(ask.card, node)]
    return [
        _crowd(ask, nodes, float32=True),
        _crowd(ask, gpus, float32=False),
        _crowd(ask, able, float32=False),
    ]


def _crowd(ask: Ask, nodes: Sequence[NodeResources], *, float32: bool) -> Peers:
    ways = [casts(ask.card, node)[0] if float32 else Cast.NOTHING for node in nodes]
    if float32:
        ways = [Cast.EVERYTHING if cast is Cast.NOTHING else cast for cast in ways]
    return Peers(ask.steps, ask.links, nodes, ways, float32=float32)


def _has_cpu(peers: Peers) -> bool:
    return any(node.on_cpu for node in peers.nodes)


def _holding(ask: Ask, peers: Peers, size: int, tokens: int) -> list[int]:
    """The nodes that hold a share, and so many tokens of keys and values."""
    needs = {cast: ask.sizes.equal_part(size, cast=cast).bytes(tokens) for cast in set(peers.casts)}
    return [
        at
        for at, (node, cast) in enumerate(zip(peers.nodes, peers.casts, strict=True))
        if needs[cast] <= node.free_memory
    ]


class _Team(NamedTuple):
    """Nodes in the order of their ranks, and what each casts."""

    members: list[tuple[NodeResources, Cast]]
    speeds: Speeds


def _team(ask: Ask, peers: Peers, pool: Sequence[int], size: int) -> _Team:
    """The fastest `size` of the pool, all of which hold a share."""
    paces = Paces(peers, size, 1)
    search = _Search(paces, pool, size)
    order = min(search.all() if len(pool) <= _FEW else search.some(), key=paces.step)
    speeds = Speeds(
        prefill=paces.prefill(order),
        seconds=paces.step(order),
        slowest=Paces(peers, size, ask.rows).step(order),
    )
    return _Team([(peers.nodes[at], peers.casts[at]) for at in order], speeds)


class _Search:
    """Orders of `size` nodes that may be the fastest."""

    def __init__(self, paces: Paces, pool: Sequence[int], size: int) -> None:
        self._paces = paces
        self._size = size
        self._pool = sorted(pool, key=lambda at: paces.computes[at])

    def all(self) -> Iterable[Sequence[int]]:
        for chosen in combinations(self._pool, self._size):
            yield from permutations(chosen)

    def some(self) -> Iterable[Sequence[int]]:
        """Around each of the fastest nodes those that are near to it; and the fastest of all. Then
        nodes at the slowest link are exchanged as long as that helps."""
        chosen = [self._pool[: self._size]]
        for seed in self._pool[:_SEEDS]:
            near = self._paces.hops[seed]
            others = sorted((at for at in self._pool if at != seed), key=near.__getitem__)
            chosen.append([seed, *others[: self._size - 1]])
        best = min(map(self._ring, chosen), key=self._paces.step)
        yield self._improved(best)

    def _ring(self, nodes: Sequence[int]) -> list[int]:
        """An order in which each is followed by the one nearest to it, turned round between two
        links as long as that makes the slowest one faster (2-opt, on the longest edge only)."""
        first, *rest = nodes
        order, left = [first], sorted(rest)
        hops = self._paces.hops
        while left:
            order.append(min(left, key=hops[order[-1]].__getitem__))
            left.remove(order[-1])
        while (turned := _turned(order, hops)) is not None:
            order = turned
        return order

    def _improved(self, order: list[int]) -> list[int]:
        took, hops = self._paces.step(order), self._paces.hops
        for _ in range(_ROUNDS):
            links = [*pairwise(order), (order[-1], order[0])]
            ends = max(links, key=lambda link: hops[link[0]][link[1]])
            others = [at for at in self._pool if at not in order][:_SEEDS]
            tries = [
                self._ring([new if at == old else at for at in order])
                for old in ends
                for new in others
            ]
            best = min(tries, key=self._paces.step, default=order)
            if self._paces.step(best) >= took:
                break
            order, took = best, self._paces.step(best)
        return order


def _turned(order: list[int], hops: Sequence[Sequence[float]]) -> list[int] | None:
    """The ring with its slowest link and another one replaced by two that are faster than the
    slowest; None if there are none such."""
    links = [*pairwise(order), (order[-1], order[0])]
    slow = max(range(len(links)), key=lambda at: hops[links[at][0]][links[at][1]])
    order = [*order[slow + 1 :], *order[: slow + 1]]  # Now the slowest link closes the ring.
    end, begin = order[-1], order[0]

    def slower(at: int) -> float:
        return max(hops[begin][order[at + 1]], hops[order[at]][end])

    best = min(range(len(order) - 1), key=slower)
    if slower(best) >= hops[end][begin]:
        return None
    return [*reversed(order[: best + 1]), *order[best + 1 :]]


def _planned(ask: Ask, team: _Team) -> Planned:
    size = len(team.members)
    parts = [
        Part(node, 0, ask.card.n_layers, ask.sizes.equal_part(size, cast=cast), cast)
        for node, cast in team.members
    ]
    nodes = [node for node, _ in team.members]
    return arranged(ask, parts, team.speeds, Sharding.TENSOR, _meta(ask, nodes))


def _no_room(ask: Ask, nodes: Sequence[NodeResources], size: int) -> PlacementImpossible:
    needs: list[tuple[NodeResources, Need]] = []
    for node in nodes:
        cast = casts(ask.card, node)[-1]
        needs.append((node, ask.sizes.equal_part(size, cast=cast)))
    needs.sort(key=lambda each: each[1].bytes(ask.least_context) - each[0].free_memory)
    node, need = needs[size - 1]
    return PlacementImpossible(
        f"{ask.card.model_id} needs {gib(need.bytes(ask.least_context))} on each of {size} nodes, "
        f"and {node.name} has {gib(node.free_memory)} free for it."
    )
