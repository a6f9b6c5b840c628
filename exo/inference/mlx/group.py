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
_LOST = ("[ring]", "[jaccl]", "[nccl]")
# What names a file, rather than to be what stands in it.
_FILES = ("MLX_HOSTFILE", "MLX_IBV_DEVICES")
# Up to so many ranks are all neighbours of each other.
_MESH = 3


def settings(backend: str, rank: int, addresses: Sequence[Address]) -> dict[str, str]:
    """The environment variables that say who is in a group: pure. Those that are to name a file
    have what stands in it."""
    common = {"MLX_RANK": str(rank)}
    first = addresses[0]
    match backend:
        case "nccl":
            return {
                **common,
                "MLX_WORLD_SIZE": str(len(addresses)),
                "NCCL_HOST_IP": first.host,
                "NCCL_PORT": str(first.port),
            }
        case "jaccl":
            devices = {"MLX_IBV_DEVICES": json.dumps(_rdma_devices(addresses))}
            ring = {"MLX_JACCL_RING": "1"} if len(addresses) > _MESH else {}
            return {**common, **devices, **ring, "MLX_JACCL_COORDINATOR": str(first)}
        case _:
            hosts = json.dumps([[str(address)] for address in addresses])
            return {**common, "MLX_HOSTFILE": hosts}


def _rdma_devices(addresses: Sequence[Address]) -> list[list[str | None]]:
    """By rank, the device that leads to each other rank, as macOS calls that of an interface."""
    size = len(addresses)
    found: list[list[str | None]] = [[None] * size for _ in addresses]
    for rank, address in enumerate(addresses):
        found[rank][(rank - 1) % size] = f"rdma_{address.before}"
        found[rank][(rank + 1) % size] = f"rdma_{address.after}"
    return found


def join(backend: str, rank: int, addresses: Sequence[Address]) -> mx.distributed.Group:
    """Form the group; `addresses` are those of all ranks.

    Raises:
        RingError: it cannot be formed.
    """
    variables = settings(backend, rank, addresses)
    with tempfile.TemporaryDirectory(prefix="exo-group-") as folder:
        for name in variables.keys() & set(_FILES):
            file = Path(folder) / f"{name}.json"
            file.write_text(variables[name], "utf-8")
            variables[name] = str(file)
        os.environ.update(variables)
        try:
            return mx.distributed.init(backend=backend, strict=True)
        except (RuntimeError, ValueError) as error:
            raise RingError(f"mx.distributed cannot link the ranks: {error}") from error


def is_loss(error: RuntimeError) -> bool:
    """Whether MLX says that a rank of the group is lost."""
    return str(error).startswith(_LOST)
