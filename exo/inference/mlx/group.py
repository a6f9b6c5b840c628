"""A group of `mx.distributed`: the ranks whose collective operations are computed together.

Its links are neither encrypted nor authenticated, and they know no time: a rank waits for ever for
one that does not come, also in `join`, which keeps Python's lock meanwhile. So the ring's own links
watch over the group, and a process whose group has lost a rank ends: there is no second one.
"""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx

from exo.errors import RingError
from exo.inference.ring.gathering import Address

# What MLX's own messages begin with when a rank is lost.
_LOST = ("[ring]", "[nccl]")


def settings(backend: str, rank: int, addresses: Sequence[Address]) -> dict[str, str]:
    """The environment variables that say who is in a group: pure. What MLX_HOSTFILE is to name is
    the content of that file."""
    common = {"MLX_RANK": str(rank)}
    if backend == "nccl":
        first = addresses[0]
        return {
            **common,
            "MLX_WORLD_SIZE": str(len(addresses)),
            "NCCL_HOST_IP": first.host,
            "NCCL_PORT": str(first.port),
        }
    return {**common, "MLX_HOSTFILE": json.dumps([[str(address)] for address in addresses])}


def join(backend: str, rank: int, addresses: Sequence[Address]) -> mx.distributed.Group:
    """Form the group; `addresses` are those of all ranks.

    Raises:
        RingError: it cannot be formed.
    """
    variables = settings(backend, rank, addresses)
    with tempfile.TemporaryDirectory(prefix="exo-group-") as folder:
        if hosts := variables.get("MLX_HOSTFILE"):
            file = Path(folder) / "hosts.json"
            file.write_text(hosts, "utf-8")
            variables["MLX_HOSTFILE"] = str(file)
        os.environ.update(variables)
        try:
            return mx.distributed.init(backend=backend, strict=True)
        except (RuntimeError, ValueError) as error:
            raise RingError(f"mx.distributed cannot link the ranks: {error}") from error


def is_loss(error: RuntimeError) -> bool:
    """Whether MLX says that a rank of the group is lost."""
    return str(error).startswith(_LOST)
