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
from exo.cluster.placement.memory import Need, casts
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
    peers = Peers(ask.steps, ask.links, sorted(nodes, key=lambda node: node.node_id))
    for size in range(least, most + 1):
        obstacle = ask.card.shares.obstacle(size) if ask.card.shares else "it is of another kind"
        if obstacle is None:
            found[size] = _best(ask, peers, size)
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


def _best(ask: Ask, peers: Peers, size: int) -> Planned | PlacementImpossible:
    """With the longest usual context that there is room for."""
    for context in ask.contexts:
        teams = [
            _team(ask, peers, pool, size, cast=cast)
            for pool, cast in _pools(ask, peers.nodes, size, context)
        ]
        if teams:
            return _planned(ask, min(teams, key=lambda team: team.speeds.seconds))
    return _no_room(ask, peers.nodes, size)


def _pools(
    ask: Ask, nodes: Sequence[NodeResources], size: int, tokens: int
) -> list[tuple[list[int], bool]]:
    """Nodes that hold a share, and whether they cast it to float32: all ranks of a group compute
    in one dtype, so all cast if one of them is a CPU that has to."""

    def holding(*, cast: bool, gpus: bool = False) -> list[int]:
        need = ask.sizes.equal_part(size, cast=cast).bytes(tokens)
        return [
            at
            for at, node in enumerate(nodes)
            if need <= node.free_memory and not (gpus and node.on_cpu)
        ]

    pools: list[tuple[list[int], bool]] = []
    if any(node.on_cpu for node in nodes):
        for cast in casts(ask.card, on_cpu=True):
            pools.append((holding(cast=cast), cast))
            if len(pools[-1][0]) >= size:
                break
    pools.append((holding(cast=False, gpus=True), False))
    return [(pool, cast) for pool, cast in pools if len(pool) >= size]


class _Team(NamedTuple):
    """Nodes in the order of their ranks."""

    nodes: list[NodeResources]
    cast: bool
    speeds: Speeds


def _team(ask: Ask, peers: Peers, pool: Sequence[int], size: int, *, cast: bool) -> _Team:
    """The fastest `size` of the pool, all of which hold a share."""
    paces = Paces(peers, size, 1, cast=cast)
    search = _Search(paces, pool, size)
    order = min(search.all() if len(pool) <= _FEW else search.some(), key=paces.step)
    speeds = Speeds(
        prefill=paces.prefill(order),
        seconds=paces.step(order),
        slowest=Paces(peers, size, ask.rows, cast=cast).step(order),
    )
    return _Team([peers.nodes[at] for at in order], cast, speeds)


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
        """An order in which each is followed by the one nearest to it."""
        first, *rest = nodes
        order, left = [first], sorted(rest)
        while left:
            order.append(min(left, key=self._paces.hops[order[-1]].__getitem__))
            left.remove(order[-1])
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


def _planned(ask: Ask, team: _Team) -> Planned:
    need = ask.sizes.equal_part(len(team.nodes), cast=team.cast)
    parts = [Part(node, 0, ask.card.n_layers, need, team.cast) for node in team.nodes]
    return arranged(ask, parts, team.speeds, Sharding.TENSOR, _meta(ask, team.nodes))


def _no_room(ask: Ask, nodes: Sequence[NodeResources], size: int) -> PlacementImpossible:
    needs: list[tuple[NodeResources, Need]] = []
    for node in nodes:
        cast = casts(ask.card, on_cpu=node.on_cpu)[-1]
        needs.append((node, ask.sizes.equal_part(size, cast=cast)))
    needs.sort(key=lambda each: each[1].bytes(ask.least_context) - each[0].free_memory)
    node, need = needs[size - 1]
    return PlacementImpossible(
        f"{ask.card.model_id} needs {gib(need.bytes(ask.least_context))} on each of {size} nodes, "
        f"and {node.name} has {gib(node.free_memory)} free for it."
    )
