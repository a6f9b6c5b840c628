"""One node of the cluster, as the API sees it: the state, commands, and requests to instances.

What must be decided goes to the master, wherever that is; what is known is read from this node's
own replica.
"""

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from typing import TypeVar

from exo.cluster.commands import (
    Command,
    CreateInstance,
    DeleteInstance,
    DrainNode,
    PinInstance,
    find_instance,
    find_node,
)
from exo.cluster.drawings import able, draw, drawers
from exo.cluster.events import Entry
from exo.cluster.generation import Generations
from exo.cluster.keeper import Keeper
from exo.cluster.links import worth_telling
from exo.cluster.local import LocalNode, NodeOptions
from exo.cluster.log import EventLog
from exo.cluster.placement import NodeResources, Wanted
from exo.cluster.remote import (
    LEAVE,
    SAMPLE,
    Offer,
    Report,
    pack,
    query_adapter,
    sample_adapter,
    unpack,
)
from exo.cluster.replica import Replica
from exo.cluster.requests import Output
from exo.cluster.resources import ModelQuery, NodeSample, free_resources
from exo.cluster.roles import Roles
from exo.cluster.spread import Spread
from exo.cluster.state import ClusterState, Draft, Instance, LinkInfo, NodeInfo, Placement, Runner
from exo.cluster.worker import Worker, WorkerOptions
from exo.device.profile import DeviceProfile, Memory
from exo.errors import PeerError
from exo.inference.image.types import DrawRequest
from exo.inference.messages import DraftStats, LoadStats, RingStats
from exo.inference.types import EmbedRequest, GenerateRequest
from exo.models.card import ModelCard
from exo.models.registry import Registry
from exo.p2p.network import Body, LinkMeasure, Network
from exo.p2p.reach import hosts
from exo.p2p.term import Term

Stats = TypeVar("Stats", RingStats, DraftStats)

# Seconds that another node gets to say what it could do for a model.
SAMPLE_PATIENCE = 3.0
# Seconds that a node waits, before it says so, for the memory of runners that it has stopped.
_FREE_PATIENCE = 2.0
# Seconds between two looks at this node's free memory, for the others.
_STAMP_EVERY = 2.0


class Node:
    """A node that is running. `open` it before use, `close` it after."""

    def __init__(
        self,
        options: NodeOptions,
        worker: WorkerOptions,
        event_log: EventLog,
        registry: Registry,
        network: Network,
        stop: Callable[[], None],
    ) -> None:
        """`stop` ends the daemon."""
        self.options = options
        self.network = network
        self.registry = registry
        self._stop = stop
        self._local = LocalNode(options, registry)
        self._replica = Replica(event_log, self._on_state)
        self.worker = Worker(worker, self._report, self._local.locate, self._hosts)
        self.keeper = Keeper(network, options.keep_alive, self._unload)
        self._generations = Generations(network, self._replica, self.worker, self.keeper)
        self._roles = Roles(network, self._replica, self._offer, self._samples)
        self._reports: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        network.services.requests[SAMPLE] = self._serve_sample
        network.services.requests[LEAVE] = self._serve_leave
        network.on_measured = self._links_measured

    async def open(self, device: DeviceProfile | None) -> None:
        """Take part in the cluster, and bring back the instances that are wanted."""
        self._local.open(device)
        self._stamp()
        self._roles.start()

    async def close(self) -> None:
        if self._timer:
            self._timer.cancel()
        await self.keeper.close()
        await self._roles.close()
        await self.worker.close()
        if self._reports:
            await asyncio.wait(self._reports)
        await self._replica.close()

    async def measured(self, device: DeviceProfile | None) -> None:
        """Take in this device's measurement; None if it failed, and then it counts as a CPU."""
        self._local.measured(device)
        if device is not None:
            await self._roles.report(Report(node_id=self.options.node_id, device=device))

    # The state, and waiting for it.

    @property
    def state(self) -> ClusterState:
        return self._replica.state

    @property
    def info(self) -> NodeInfo:
        """This node, also before the cluster knows it."""
        return self._local.info

    async def wait_for(self, done: Callable[[ClusterState], bool]) -> ClusterState:
        """The first state, from now on, for which `done` is true."""
        return await self._replica.wait_for(done)

    async def wait_joined(self, patience: float) -> bool:
        """Whether, within so many seconds, this node was in the state that it sees."""
        try:
            async with asyncio.timeout(patience):
                await self.wait_for(self._has_joined)
        except TimeoutError:
            return False
        return True

    async def events(self, since: int, limit: int) -> list[Entry]:
        return await self._replica.events(since, limit)

    async def follow(self, since: int) -> AsyncIterator[Entry]:
        """Every entry after `since`, for ever."""
        async for entries in self._replica.follow(since):
            for entry in entries:
                yield entry

    def memory_of(self, node_id: str) -> Memory | None:
        """A node's memory as it was some seconds ago at most; None if it is not known."""
        if node_id == self.options.node_id:
            return self._local.memory()
        found = self.network.metadata(node_id).get("memory")
        return Memory.model_validate(found) if found else None

    def ring_stats(self, instance: Instance) -> RingStats | None:
        """How an instance's ring worked some seconds ago; None if it has not, or has none."""
        return self._stats(instance, self.worker.ring_stats, "rings", RingStats)

    def load_stats(self, instance: Instance) -> LoadStats | None:
        """What an instance has to do; None before it is ready, or if its rank 0 is not here."""
        return self.worker.load_stats.get(instance.instance_id)

    def draft_stats(self, instance: Instance) -> DraftStats | None:
        """What became of an instance's drafts, some seconds ago; None if it has none."""
        return self._stats(instance, self.worker.draft_stats, "drafts", DraftStats)

    def _stats(
        self, instance: Instance, own: Mapping[str, Stats], key: str, kind: type[Stats]
    ) -> Stats | None:
        """What the runner of rank 0 says: of this node, or in the heartbeats of another."""
        node_id = instance.placement.shards[0].node_id
        if node_id == self.options.node_id:
            return own.get(instance.instance_id)
        found = self.network.metadata(node_id).get(key, {}).get(instance.instance_id)
        return kind.model_validate(found) if found else None

    # Commands.

    async def submit(self, command: Command) -> ClusterState:
        """Have the master carry out a command; a state that shows it.

        Raises:
            ExoError: it is refused, or there is no master.
        """
        return await self._roles.submit(command)

    def observe(self, report: Report) -> None:
        """Tell the master what was seen here, without waiting for it."""
        task = asyncio.create_task(self._roles.report(report))
        self._reports.add(task)
        task.add_done_callback(self._reports.discard)

    async def create_instance(
        self,
        card: ModelCard,
        wanted: Wanted,
        placement: Placement | None,
        command_id: str,
        *,
        pinned: bool = True,
    ) -> Instance:
        """Record a new instance; it loads by itself. The same command id gives the same instance.

        Raises:
            ModelNotFound: no weights of the model are on any node.
            PlacementImpossible, StorageFull, MasterUnknown: as they say.
        """
        command = CreateInstance(
            command_id=command_id,
            instance_id=uuid.uuid4().hex,
            card=card,
            wanted=wanted,
            placement=placement,
            pinned=pinned,
        )
        state = await self._roles.submit(command)
        return find_instance(state, state.commands[command_id].instance_id)

    async def delete_instance(self, instance_id: str, command_id: str) -> None:
        """Unload an instance for good.

        Raises:
            InstanceNotFound, StorageFull, MasterUnknown: as they say.
        """
        await self._roles.submit(DeleteInstance(command_id=command_id, instance_id=instance_id))

    async def pin_instance(self, instance_id: str, *, pinned: bool) -> Instance:
        """Have an instance stay until it is deleted, or not.

        Raises:
            InstanceNotFound, StorageFull, MasterUnknown: as they say.
        """
        command = PinInstance(command_id=uuid.uuid4().hex, instance_id=instance_id, pinned=pinned)
        return find_instance(await self._roles.submit(command), instance_id)

    async def drain(self, name: str, *, draining: bool) -> NodeInfo:
        """Give a node no more instances, or again.

        Raises:
            NodeNotFound, StorageFull, MasterUnknown: as they say.
        """
        node_id = find_node(self.state, name).node_id
        command = DrainNode(command_id=uuid.uuid4().hex, node_id=node_id, draining=draining)
        return find_node(await self._roles.submit(command), node_id)

    async def leave(self, name: str) -> NodeInfo:
        """Have a node finish its answers, leave the cluster and stop.

        Raises:
            NodeNotFound: there is no such node.
            PeerError: it cannot be told.
        """
        node = find_node(self.state, name)
        if node.node_id == self.options.node_id:
            self._stop()
        else:
            await self.network.request(node.node_id, LEAVE)
        return node

    async def resources(
        self, card: ModelCard, draft: Draft | None = None
    ) -> tuple[NodeResources, ...]:
        """What the nodes can still give to new instances of this model."""
        return free_resources(self.state, await self.samples(card, draft))

    async def samples(
        self, card: ModelCard, draft: Draft | None = None
    ) -> Mapping[str, NodeSample]:
        """What each node could do for this model, by its id."""
        return await self._samples(ModelQuery.of(card, draft))

    async def find_card(self, name: str) -> ModelCard | None:
        """A model by its name, as a node that has its weights knows it."""
        samples = (await self._samples(ModelQuery(name=name))).values()
        cards = [sample.card for sample in samples if sample.card is not None]
        return next((card for card in cards if card.path is not None), next(iter(cards), None))

    # Requests.

    def generate(
        self, instance: Instance, request: GenerateRequest | EmbedRequest
    ) -> AsyncGenerator[Output]:
        """Run a request; see `Generations.run`."""
        return self._generations.run(instance, request)

    def draw(self, instances: Sequence[Instance], request: DrawRequest) -> AsyncGenerator[Output]:
        """Have pictures drawn by these instances of one model, the best first; see
        `drawings.able` and `drawings.draw`."""
        known = {instance.instance_id: instance for instance in instances}
        spread = Spread(request, drawers(self.state, able(instances, request), self.load))
        return draw(spread, lambda at, part: self._generations.run(known[at], part))

    def load(self, instance: Instance) -> int:
        """See `Generations.load`."""
        return self._generations.load(instance)

    def idle(self, instance: Instance) -> float | None:
        """Seconds since an instance was used last, some seconds ago, and 0 while it is; None if it
        may not be unloaded, or that is not known."""
        node_id = instance.placement.shards[0].node_id
        if node_id == self.options.node_id:
            return self.keeper.idle.get(instance.instance_id)
        return self.network.metadata(node_id).get("idle", {}).get(instance.instance_id)

    def reaches(self, instance: Instance) -> bool:
        """Whether this node has a link to the one of the instance's rank 0, or is it."""
        node_id = instance.placement.shards[0].node_id
        return node_id == self.options.node_id or self.network.is_linked(node_id)

    @property
    def open_requests(self) -> int:
        """See `Generations.open_requests`."""
        return self._generations.open_requests

    async def wait_idle(self) -> None:
        """Return when no request is open."""
        await self._generations.wait_idle()

    # What the parts ask of one another.

    def _on_state(self, state: ClusterState) -> None:
        # What an earlier life left on disk may be out of date: the cluster is asked first.
        if self._has_joined(state):
            self.worker.reconcile(state)
            self.keeper.reconcile(state)

    def _has_joined(self, state: ClusterState) -> bool:
        me = state.nodes.get(self.options.node_id)
        return me is not None and me.online and me.boot == self.options.boot

    def _offer(self, term: Term) -> Offer:
        return Offer(
            term=term, node=self._local.info, runners=self.worker.runners, state=self.state
        )

    async def _report(self, runner: Runner) -> None:
        await self._roles.report(Report(node_id=self.options.node_id, runner=runner))

    def _hosts(self, node_id: str) -> Sequence[str]:
        """Where another node's runners can be reached: at its addresses, as its peers know them."""
        if node_id == self.options.node_id:
            return ("127.0.0.1",)
        member = self.network.members.get(node_id)
        return hosts(member.addresses) if member else ()

    def _links_measured(self, measures: Sequence[LinkMeasure]) -> None:
        me = self.options.node_id
        links = [
            LinkInfo(node_id=me, peer_id=m.peer_id, latency=m.latency, bandwidth=m.bandwidth)
            for m in measures
        ]
        if news := worth_telling(self.state, links):
            self.observe(Report(node_id=me, links=news))

    async def _samples(self, query: ModelQuery) -> Mapping[str, NodeSample]:
        """What each node that is here could do for a model."""
        nodes = [node.node_id for node in self.state.nodes.values() if node.online]
        found = await asyncio.gather(*(self._sample(node_id, query) for node_id in nodes))
        return {k: sample for k, sample in zip(nodes, found, strict=True) if sample is not None}

    async def _sample(self, node_id: str, query: ModelQuery) -> NodeSample | None:
        if node_id == self.options.node_id:
            return await self._own_sample(query)
        try:
            body = await self.network.request(
                node_id, SAMPLE, pack(query), patience=SAMPLE_PATIENCE
            )
            return unpack(sample_adapter, body)
        except PeerError:
            return None

    async def _serve_sample(self, _: str, body: Body) -> Body:
        return pack(await self._own_sample(unpack(query_adapter, body)))

    async def _own_sample(self, query: ModelQuery) -> NodeSample:
        await self.worker.freed(_FREE_PATIENCE)
        return await self._local.sample(query, self.state)

    async def _unload(self, instance_id: str) -> None:
        await self.delete_instance(instance_id, uuid.uuid4().hex)

    async def _serve_leave(self, _: str, __: Body) -> Body:
        self._stop()
        return None

    def _stamp(self) -> None:
        rings = {
            key: stats.model_dump(mode="json") for key, stats in self.worker.ring_stats.items()
        }
        drafts = {
            key: stats.model_dump(mode="json") for key, stats in self.worker.draft_stats.items()
        }
        memory = self._local.memory().model_dump(mode="json")
        idle = {name: round(seconds, 1) for name, seconds in self.keeper.idle.items()}
        self.network.stamp({"memory": memory, "rings": rings, "drafts": drafts, "idle": idle})
        self._timer = asyncio.get_running_loop().call_later(_STAMP_EVERY, self._stamp)
