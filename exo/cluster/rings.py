"""Who is next to whom in an instance's ring: pure, over what its runners have told.

Every runner of several says where it listens. When all of an instance have, each node can tell its
own runner its neighbours; when one is started anew, the ring has another epoch.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence

from exo.cluster import groups
from exo.cluster.state import ClusterState, Instance, RingEnd
from exo.errors import RingError
from exo.inference.ring.events import Neighbour, RingSpec

Hosts = Callable[[str], Sequence[str]]

# What is said first if several things differ.
_FACTS = {
    "exo": "versions of exo",
    "mlx": "versions of mlx",
    "mlx-lm": "versions of mlx-lm",
    "layers": "plans of who computes which layers",
    "weights": "weights",
    "links": "settings of ring_encryption",
}
_HINT = "All nodes of an instance need the same exo and the same model files."
_HINTS = {"links": "Encrypt on all nodes, or on none if the cable between them is yours alone."}


def ring_of(state: ClusterState, instance: Instance, rank: int, hosts: Hosts) -> RingSpec | None:
    """The ring that the runner of `rank` is to form; None while not all runners listen. `hosts`
    gives the addresses of a node, the best ones first.

    Raises:
        RingError: the runners cannot compute one model together; the message says why.
    """
    ends: list[RingEnd] = []
    for shard in instance.placement.shards:
        runner = state.runner(instance.instance_id, shard.rank)
        if runner is None or runner.ring is None:
            return None
        ends.append(runner.ring)
    _check_facts(state, instance, [end.facts for end in ends])
    epoch = hashlib.sha256("".join(end.certificate for end in ends).encode()).hexdigest()[:32]

    def neighbour(at: int) -> Neighbour:
        end, node_id = ends[at], instance.placement.shards[at].node_id
        node = state.nodes.get(node_id)
        known = groups.usable(instance, hosts(node_id), node.name if node else node_id)
        return Neighbour(rank=at, hosts=known, port=end.port, certificate=end.certificate)

    size = len(ends)
    return RingSpec(
        epoch=epoch, previous=neighbour((rank - 1) % size), following=neighbour((rank + 1) % size)
    )


def _check_facts(
    state: ClusterState, instance: Instance, facts: Sequence[Mapping[str, str]]
) -> None:
    for rank, other in enumerate(facts):
        for name, what in _FACTS.items():
            mine, theirs = facts[0].get(name), other.get(name)
            if mine == theirs:
                continue
            nodes = [
                node.name if (node := state.nodes.get(shard.node_id)) else shard.node_id
                for shard in (instance.placement.shards[0], instance.placement.shards[rank])
            ]
            raise RingError(
                f"{nodes[0]} and {nodes[1]} have different {what} ({mine} and {theirs}).",
                hint=_HINTS.get(name, _HINT),
            )
