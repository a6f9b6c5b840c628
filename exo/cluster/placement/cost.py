"""The seconds that a share of the layers and a hop between two nodes take: pure.

A layer takes as long as its weights take to be read, or as long as its two operations per weight
and token take to be computed, whichever is more. A hop takes half a round trip, the bytes of the
activations, and what the sockets cost. A node that computes for other instances as well shares
its speed with them.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import inf
from typing import NamedTuple

from exo.cluster.placement.memory import Cast, Sizes
from exo.cluster.placement.wanted import NodeResources
from exo.cluster.state import LinkInfo
from exo.models.card import ModelCard

# Of a device that is not measured yet: an old laptop.
_BANDWIDTH = 1e10
_FLOPS = 5e10
# The part of the memory bandwidth that MLX's CPU kernels reach in half precision: 0.38 was measured
# of bfloat16, 0.19 of float16.
_HALF_ON_CPU = 0.3
# Of a link that is not measured yet: a round trip in seconds, bytes/s.
_LATENCY = 1e-3
_LINK_BANDWIDTH = 1e8
# Seconds to encrypt, send, wake up and decrypt.
_SOCKETS = 1e-4
# Seconds that a hop of `mx.distributed` costs beside the link's latency: it is not encrypted, and
# nobody sleeps.
_SPINNING = 4e-5
# How often the ranks of a split by tensors sum up what they have, in each layer.
_SUMS = 2


# A number for each node and each node.
Table = list[list[float]]


class Speed(NamedTuple):
    """Bytes/s read and FLOP/s, of which a shard that is placed now gets its share."""

    bandwidth: float
    flops: float


def speed(node: NodeResources, card: ModelCard, *, cast: Cast) -> Speed:
    bandwidth, flops = _BANDWIDTH, 0.0
    if node.device is not None:
        measured = node.device.flops
        bandwidth = node.device.memory_bandwidth
        dtype = "float32" if cast else card.dtype
        if card.quantization and "quantized" in measured:
            dtype = "quantized"
        flops = measured.get(dtype) or max(measured.values(), default=0.0)
    if node.on_cpu and cast is Cast.NOTHING and card.dtype != "float32":
        bandwidth *= _HALF_ON_CPU
    sharing = 1 + node.shards
    return Speed(bandwidth / sharing, (flops or _FLOPS) / sharing)


class Steps:
    """How long nodes compute on the layers of a model."""

    def __init__(self, sizes: Sizes) -> None:
        card, parts = sizes.card, sizes.card.parts
        bits = (
            card.quantization.bits if card.quantization else 32 if card.dtype == "float32" else 16
        )
        head = parts.head.total + (parts.embedding.total if parts.tied else 0)
        self._sizes = sizes
        self._alike = len(set(parts.layers)) == 1
        self._flop = [2 * part.total * 8 / bits for part in parts.layers]
        self._head_flop = 2 * head * 8 / bits

    @property
    def n_layers(self) -> int:
        return self._sizes.n_layers

    def hidden_bytes(self, *, float32: bool) -> int:
        """Bytes of the hidden state of one token."""
        card = self._sizes.card
        return card.hidden_size * (4 if float32 or card.dtype == "float32" else 2)

    def seconds(
        self, node: NodeResources, *, cast: Cast, rows: int = 1
    ) -> tuple[list[float], float]:
        """Seconds of a step with so many rows: of each layer, and of the head."""
        pace, sizes = speed(node, self._sizes.card, cast=cast), self._sizes

        def took(size: int, flop: float) -> float:
            return max(size / pace.bandwidth, rows * flop / pace.flops)

        n = 1 if self._alike else sizes.n_layers
        layers = [took(sizes.layer(i, cast=cast), self._flop[i]) for i in range(n)]
        head = took(sizes.head(cast=cast), self._head_flop)
        return (layers * sizes.n_layers if self._alike else layers), head

    def prefill_seconds(self, node: NodeResources, start: int, end: int, *, cast: Cast) -> float:
        """Seconds for one token of a long prompt, which is computed in large chunks."""
        return sum(self._flop[start:end]) / speed(node, self._sizes.card, cast=cast).flops


class Links:
    """The links between the nodes, each as slow as its slower direction."""

    def __init__(self, links: Iterable[LinkInfo], card: ModelCard) -> None:
        self._known: dict[tuple[str, str], LinkInfo] = {(x.node_id, x.peer_id): x for x in links}
        half = 4 if card.dtype == "float32" else 2
        # What a CPU sends is float32, as far as it computes in that.
        self._size = {False: card.hidden_size * half, True: card.hidden_size * 4}

    def between(self, sender: NodeResources, receiver: NodeResources) -> tuple[float, float]:
        """Seconds until the activations of one token are there, and until a token's id is."""
        latency, bandwidth = self.measured(sender, receiver)
        token = latency / 2 + _SOCKETS
        return token + self._size[sender.on_cpu] / bandwidth, token

    def tables(self, nodes: Sequence[NodeResources]) -> tuple[Table, Table]:
        """Both of `between` for each pair of nodes; there is no hop from a node to itself."""
        hops, tokens = [[inf] * len(nodes) for _ in nodes], [[0.0] * len(nodes) for _ in nodes]
        sizes = [self._size[node.on_cpu] for node in nodes]
        for i, one in enumerate(nodes):
            for j, other in enumerate(nodes[:i]):
                latency, bandwidth = self.measured(one, other)
                token = tokens[i][j] = tokens[j][i] = latency / 2 + _SOCKETS
                hops[i][j] = token + sizes[i] / bandwidth
                hops[j][i] = token + sizes[j] / bandwidth
        return hops, tokens

    def measured(self, sender: NodeResources, receiver: NodeResources) -> tuple[float, float]:
        """Seconds of a round trip, and bytes/s."""
        one = self._known.get((sender.node_id, receiver.node_id))
        other = self._known.get((receiver.node_id, sender.node_id))
        if one is None or other is None:
            latency, bandwidth = _LATENCY, None
            if link := one or other:
                latency, bandwidth = link.latency, link.bandwidth
        else:
            latency = max(one.latency, other.latency)
            bandwidth = min(one.bandwidth or inf, other.bandwidth or inf)
        if not bandwidth or bandwidth == inf:
            bandwidth = _LINK_BANDWIDTH
        return latency, bandwidth

    def transfer(self, sender: NodeResources, receiver: NodeResources) -> float:
        """Seconds for which the activations of one token take up the link."""
        hop, token = self.between(sender, receiver)
        return hop - token


class Peers:
    """Tables over some nodes, which are named by their indices: what each takes for whole layers
    with what it casts, and the links between them. `float32` says whether that is what they
    compute in."""

    def __init__(
        self,
        steps: Steps,
        links: Links,
        nodes: Sequence[NodeResources],
        casts: Sequence[Cast],
        *,
        float32: bool,
    ) -> None:
        self.steps = steps
        self.nodes = nodes
        self.casts = casts
        self.hidden_bytes = steps.hidden_bytes(float32=float32)
        self.links = [[links.measured(a, b) for b in nodes] for a in nodes]
        self._seconds: dict[int, list[tuple[float, float]]] = {}

    def seconds(self, rows: int) -> list[tuple[float, float]]:
        """By node, those of a step with so many rows: of all layers, and of the head."""
        known = self._seconds.get(rows)
        if known is None:
            known = list[tuple[float, float]]()
            for node, cast in zip(self.nodes, self.casts, strict=True):
                layers, head = self.steps.seconds(node, cast=cast, rows=rows)
                known.append((sum(layers), head))
            self._seconds[rows] = known
        return known


class Paces:
    """How long `size` nodes take that have an equal part of every layer each."""

    def __init__(self, peers: Peers, size: int, rows: int) -> None:
        self._peers, self._size = peers, size
        self._sums = _SUMS * peers.steps.n_layers * 2 * (size - 1)
        # Of each sum a node sends one part of `size` at a time.
        part = rows * peers.hidden_bytes / size
        # Seconds that each node computes in a step.
        self.computes = [layers / size + head for layers, head in peers.seconds(rows)]
        # Seconds until a part of a sum is at the next node.
        self.hops = [
            [latency / 2 + _SPINNING + part / bandwidth for latency, bandwidth in row]
            for row in peers.links
        ]

    def step(self, order: Sequence[int]) -> float:
        """Seconds of a step over these nodes in a ring."""
        links, hops = self._peers.links, self.hops
        told = sum(links[a][b][0] / 2 + _SOCKETS for a, b in pairwise(order))
        slowest = max(hops[order[-1]][order[0]], *(hops[a][b] for a, b in pairwise(order)))
        return told + max(self.computes[at] for at in order) + self._sums * slowest

    def prefill(self, order: Sequence[int]) -> float:
        """Seconds for one token of a long prompt, of which many are computed at once."""
        peers = self._peers
        n = peers.steps.n_layers
        flops = max(
            peers.steps.prefill_seconds(peers.nodes[at], 0, n, cast=peers.casts[at]) for at in order
        )
        around = [*pairwise(order), (order[-1], order[0])]
        slowest = min(peers.links[a][b][1] for a, b in around)
        return flops / self._size + self._sums * peers.hidden_bytes / self._size / slowest
