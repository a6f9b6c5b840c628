"""This node: what it says of itself, and what it can do for a model."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from exo import __version__
from exo.cluster.replica import utc_now
from exo.cluster.resources import ModelQuery, NodeSample
from exo.cluster.state import ClusterState, NodeInfo
from exo.device.host import computes_on_cpu
from exo.device.memory import read_memory
from exo.device.profile import DeviceProfile, Memory
from exo.errors import ModelInvalid, ModelNotFound
from exo.models.card import ModelCard
from exo.models.registry import Registry


@dataclass(frozen=True)
class NodeOptions:
    """Who this node is and how much it may use. `address` is where its API listens, `boot` is
    unlike in any other run, `links` are asked for when they are told to others. `mlx_links` and
    `keep_alive` are the settings."""

    node_id: str
    name: str
    address: str
    memory_fraction: float
    boot: str = ""
    links: Callable[[], tuple[str, ...]] = tuple
    mlx_links: bool = False
    keep_alive: float = -1.0


class LocalNode:
    """What computes here, how much memory it has, and which models."""

    def __init__(self, options: NodeOptions, registry: Registry) -> None:
        self.options = options
        self.registry = registry
        self.device: DeviceProfile | None = None
        self._started_at = utc_now()
        self._measured = asyncio.Event()

    @property
    def info(self) -> NodeInfo:
        options = self.options
        return NodeInfo(
            node_id=options.node_id,
            name=options.name,
            version=__version__,
            address=options.address,
            started_at=self._started_at,
            boot=options.boot,
            links=options.links(),
            device=self.device,
        )

    def open(self, device: DeviceProfile | None) -> None:
        """Take in what is known of the device at the start."""
        self.device = device
        if device is not None or computes_on_cpu():
            self._measured.set()

    def measured(self, device: DeviceProfile | None) -> None:
        """Take in the measurement; None if it failed, and then the device counts as a CPU."""
        self.device = device or self.device
        self._measured.set()

    def memory(self) -> Memory:
        """Memory of the device that computes, now."""
        if self.device is None:
            return read_memory("cpu", None)
        return read_memory(self.device.kind, self.device.memory_total, self.device.card)

    async def sample(self, query: ModelQuery, state: ClusterState) -> NodeSample:
        """What this node could do for a model."""
        await self._measured.wait()  # What computes decides what fits.
        card = await asyncio.to_thread(self._find, query)
        draft = await asyncio.to_thread(self._find, query.draft) if query.draft else None
        has_draft = query.draft is None or (draft is not None and draft.path is not None)
        loaded = sum(
            runner.memory
            for instance in state.instances.values()
            for shard in instance.placement.shards
            if shard.node_id == self.options.node_id
            and (runner := state.runner(instance.instance_id, shard.rank))
        )
        # What is loaded is missing from `available` and planned as well: it counts once.
        available = self.memory().available + loaded
        return NodeSample(
            budget=int(available * self.options.memory_fraction),
            card=card,
            has_draft=has_draft,
            mlx_links=self.options.mlx_links,
        )

    async def locate(self, card: ModelCard) -> Path:
        """The folder with the weights on this node.

        Raises:
            ModelNotFound: there is none.
        """
        found = await asyncio.to_thread(self._find, ModelQuery.of(card))
        if found is None or found.path is None:
            where = f" at {card.path}" if card.path else ""
            raise ModelNotFound(
                f"The weights of {card.model_id} are not{where} on {self.options.name}.",
                param="model",
            )
        return found.path

    def _find(self, query: ModelQuery) -> ModelCard | None:
        here = query.path is not None and (query.path / "config.json").is_file()
        for name in (str(query.path), query.name) if here else (query.name,):
            try:
                card = self.registry.resolve(name)
            except (ModelNotFound, ModelInvalid):
                continue
            if card.path is None or query.shape in {None, card.shape}:
                return card
        return None
