"""What is particular about instances whose nodes are linked by `mx.distributed`: pure.

Its links wait for ever, so a runner of such an instance that says nothing is ended at once: the
others of its group have given up by then, and a group cannot be formed again.
"""

from collections.abc import Sequence
from typing import Any

from exo.cluster.state import Instance, Sharding
from exo.errors import Forbidden, RingError


def check_allowed(instance: Instance, *, mlx_links: bool) -> None:
    """See that this node's owner allows such links, whoever placed the instance.

    Raises:
        Forbidden: no.
    """
    if is_grouped(instance) and not mlx_links:
        raise Forbidden(
            "This node takes no part in links of mx.distributed, which are neither encrypted nor "
            "authenticated.",
            hint="Where you trust the network, start it with --mlx-links.",
        )


def is_grouped(instance: Instance) -> bool:
    return instance.placement.instance_meta.group != ""


def fields(instance: Instance) -> dict[str, Any]:
    """Those of a shard's `Load` that say how it is linked, and what it has of a layer."""
    placement = instance.placement
    known: dict[str, Any] = {"group": placement.instance_meta.group}
    if placement.sharding is Sharding.TENSOR:
        known |= {"tensor": True, "plan": f"a part of every layer for each of {_size(instance)}"}
    return known


def kept_part(instance: Instance) -> int:
    """Of how many parts the keys and values of a layer are one, on each node."""
    shares = instance.card.shares
    tensor = instance.placement.sharding is Sharding.TENSOR
    return _size(instance) if tensor and not (shares and shares.latent) else 1


def usable(instance: Instance, hosts: Sequence[str], node: str) -> list[str]:
    """Those of a node's addresses at which the rank before may link to it.

    Raises:
        RingError: there is none.
    """
    if not is_grouped(instance):
        return list(hosts)
    found = [host for host in hosts if ":" not in host]
    if hosts and not found:
        raise RingError(
            f"mx.distributed has no links over IPv6, and {node} has no other address.",
            hint="Give it an IPv4 address, or place the model as a pipeline.",
        )
    return found


def _size(instance: Instance) -> int:
    return len(instance.placement.shards)
