"""One node of the cluster: the log, the state, the master's decisions and this node's worker.

With one node, it is its own master. Everything the API needs is a method here.
"""

import asyncio
import logging
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from exo import __version__
from exo.cluster.commands import Command, CreateInstance, DeleteInstance, decide, find_instance
from exo.cluster.events import (
    Entry,
    Event,
    MasterElected,
    NodeJoined,
    NodeMeasured,
    RunnerChanged,
)
from exo.cluster.log import EventLog
from exo.cluster.placement import NodeResources, Wanted
from exo.cluster.requests import Output
from exo.cluster.state import ClusterState, Instance, NodeInfo, Placement, Runner, Term
from exo.cluster.worker import Worker, WorkerOptions
from exo.device.host import computes_on_cpu
from exo.device.memory import read_memory
from exo.device.profile import DeviceProfile, Memory
from exo.errors import ModelNotFound
from exo.inference.types import GenerateRequest
from exo.models.card import ModelCard

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NodeOptions:
    """Who this node is and how much it may use."""

    node_id: str
    name: str
    address: str
    memory_fraction: float


def utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Node:
    """A node that is running. `open` it before use, `close` it after."""

    def __init__(self, options: NodeOptions, worker: WorkerOptions, event_log: EventLog) -> None:
        self.options = options
        self.worker = Worker(worker, self._report)
        self._log = event_log
        # SQLite waits for the disk: it does so in a thread of its own, one write after another.
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="log")
        self._lock = asyncio.Lock()
        self._commits: set[asyncio.Task[ClusterState]] = set()
        self._changed = asyncio.Event()
        self._measured = asyncio.Event()
        self.state = event_log.state

    async def open(self, device: DeviceProfile | None) -> None:
        """Join the cluster of one, and bring back the instances that are wanted."""
        number = self.state.term.number + 1 if self.state.term else 1
        term = Term(number=number, master_id=self.options.node_id)
        info = NodeInfo(
            node_id=self.options.node_id,
            name=self.options.name,
            version=__version__,
            address=self.options.address,
            started_at=utc_now(),
            device=device,
        )
        await self._commit(lambda: [MasterElected(term=term), NodeJoined(node=info)], term=term)
        if self._device() or computes_on_cpu():
            self._measured.set()

    async def close(self) -> None:
        await self.worker.close()
        if self._commits:
            await asyncio.wait(self._commits)
        self._disk.shutdown()
        self._log.close()

    async def measured(self, device: DeviceProfile | None) -> None:
        """Take in this device's measurement; None if it failed, and then it counts as a CPU."""
        if device is not None:
            event = NodeMeasured(node_id=self.options.node_id, device=device)
            await self._commit(lambda: [event])
        self._measured.set()

    # The state, and waiting for it.

    async def wait_for(self, done: Callable[[ClusterState], bool]) -> ClusterState:
        """The first state, from now on, for which `done` is true."""
        while not done(self.state):
            await self._changed.wait()
        return self.state

    async def events(self, since: int, limit: int) -> list[Entry]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._disk, self._log.read, since, limit)

    async def follow(self, since: int) -> AsyncIterator[Entry]:
        """Every entry after `since`, for ever."""
        while True:
            entries = await self.events(since, 500)
            for entry in entries:
                since = entry.index
                yield entry
            if not entries:
                await self.wait_for(partial(_is_past, since))

    def memory(self) -> Memory:
        """Memory of the device that computes, now."""
        device = self._device()
        if device is None:
            return read_memory("cpu", None)
        return read_memory(device.kind, device.memory_total, device.card)

    # Commands.

    async def create_instance(
        self, card: ModelCard, wanted: Wanted, placement: Placement | None, command_id: str
    ) -> Instance:
        """Record a new instance; it loads by itself. The same command id gives the same instance.

        Raises:
            ModelNotFound: no weights of the model are on this node.
            PlacementImpossible, StorageFull: as they say.
        """
        if card.path is None:
            raise weights_missing(card)
        await self._measured.wait()  # What computes decides what fits.
        command = CreateInstance(
            command_id=command_id,
            instance_id=uuid.uuid4().hex,
            card=card,
            wanted=wanted,
            placement=placement,
        )
        state = await self._submit(command)
        return find_instance(state, state.commands[command_id].instance_id)

    async def delete_instance(self, instance_id: str, command_id: str) -> None:
        """Unload an instance for good.

        Raises:
            InstanceNotFound, StorageFull: as they say.
        """
        await self._submit(DeleteInstance(command_id=command_id, instance_id=instance_id))

    async def resources(self) -> list[NodeResources]:
        """What the nodes can still give to new instances."""
        await self._measured.wait()
        return self._resources()

    def generate(self, instance: Instance, request: GenerateRequest) -> AsyncGenerator[Output]:
        """Run a request; see `Worker.generate`."""
        return self.worker.generate(instance, request)

    def _resources(self) -> list[NodeResources]:
        options, memory = self.options, self.memory()
        mine = [
            (instance, shard)
            for instance in self.state.instances.values()
            for shard in instance.placement.shards
            if shard.node_id == options.node_id
        ]
        planned = sum(shard.memory for _, shard in mine)
        runners = [self.state.runner(instance.instance_id, shard.rank) for instance, shard in mine]
        loaded = sum(runner.memory for runner in runners if runner)
        # What is loaded is missing from `available` and planned as well: it counts once.
        free = int((memory.available + loaded) * options.memory_fraction) - planned
        return [NodeResources(options.node_id, options.name, self._device(), max(free, 0))]

    def _device(self) -> DeviceProfile | None:
        node = self.state.nodes.get(self.options.node_id)
        return node.device if node else None

    async def _submit(self, command: Command) -> ClusterState:
        def events() -> list[Event]:
            return decide(self.state, command, self._resources(), utc_now())

        return await self._commit(events, durable=True)

    async def _report(self, runner: Runner) -> None:
        await self._commit(lambda: [RunnerChanged(runner=runner)])

    async def _commit(
        self,
        events: Callable[[], list[Event]],
        *,
        durable: bool = False,
        term: Term | None = None,
    ) -> ClusterState:
        """Decide, append and apply, one after the other; what was begun is finished even when
        the one who asked has gone."""
        work = asyncio.create_task(self._append(events, durable, term))
        self._commits.add(work)
        work.add_done_callback(self._commits.discard)
        return await asyncio.shield(work)

    async def _append(
        self, events: Callable[[], list[Event]], durable: bool, term: Term | None
    ) -> ClusterState:
        async with self._lock:
            made = events()
            if not made:
                return self.state
            term = term or self.state.term
            assert term is not None  # noqa: S101  `open` sets it before anything is appended
            now, first = utc_now(), self.state.index + 1
            entries = [
                Entry(index=index, term=term, time=now, event=event)
                for index, event in enumerate(made, first)
            ]
            self.state = await asyncio.get_running_loop().run_in_executor(
                self._disk, lambda: self._log.append(entries, durable=durable)
            )
            self._changed.set()
            self._changed = asyncio.Event()
            self.worker.reconcile(self.state)
            return self.state


def _is_past(index: int, state: ClusterState) -> bool:
    return state.index > index


def weights_missing(card: ModelCard) -> ModelNotFound:
    return ModelNotFound(
        f"The weights of {card.model_id} are not on this node.",
        hint=f"Put the folder of {card.repo} into the models folder (`exo model list` shows it), "
        "or give a model folder by its path.",
        param="model",
    )
