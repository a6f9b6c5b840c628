"""How long instances stay whose rank 0 is on this node: the shell around `plan_idle`.

Woken by a change of the state, the beginning and end of a request, or a timer.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import replace

from exo.cluster.idle import Use, is_settled, limit_of, may_go, plan_idle
from exo.cluster.remote import KEEP, UNLOAD
from exo.cluster.state import ClusterState, Instance
from exo.errors import ExoError, PeerError, ProtocolError, Unavailable
from exo.p2p.network import Body, Network

# Seconds after which what could not be unloaded is tried again.
_RETRY = 10.0
_PATIENCE = 40.0

log = logging.getLogger(__name__)
Delete = Callable[[str], Awaitable[None]]


class Keeper:
    """Knows when the instances of this node were used last, and unloads what nobody uses."""

    def __init__(self, network: Network, keep_alive: float, delete: Delete) -> None:
        """`keep_alive` is the setting, `delete` unloads an instance for good."""
        self._network = network
        self._keep_alive = keep_alive
        self._delete = delete
        self._state = ClusterState()
        self._uses: dict[str, Use] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[bool]] = set()
        self._closed = False
        network.services.requests[KEEP] = self._serve_keep
        network.services.requests[UNLOAD] = self._serve_unload

    async def close(self) -> None:
        self._closed = True
        if self._timer:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def reconcile(self, state: ClusterState) -> None:
        """Take in what instances there are."""
        self._state = state
        now = asyncio.get_running_loop().time()
        uses: dict[str, Use] = {}
        for name, instance in state.instances.items():
            if instance.placement.shards[0].node_id != self._network.peer_id:
                continue
            use = self._uses.get(name, Use(now))
            # What is being loaded is not idle yet.
            uses[name] = use if is_settled(state, instance) else replace(use, since=now)
        self._uses = uses
        self._plan()

    @contextmanager
    def using(self, instance: Instance) -> Generator[None]:
        """A request is being computed.

        Raises:
            Unavailable: the instance is about to be unloaded.
        """
        name = instance.instance_id
        use = self._uses.get(name)
        if use is not None and use.leaving:
            raise Unavailable(
                f"{instance.card.model_id} is just being unloaded.",
                hint="Try again shortly.",
                retry_after=1,
            )
        self._count(name, 1)
        try:
            yield
        finally:
            self._count(name, -1)

    @property
    def idle(self) -> dict[str, float]:
        """Seconds for which each instance that may be unloaded has not been used, 0 while it is."""
        now = asyncio.get_running_loop().time()
        return {
            name: 0.0 if use.open or use.leaving else max(now - use.since, 0.0)
            for name, use in self._uses.items()
            if (instance := self._state.instances.get(name)) and may_go(self._state, instance)
        }

    def expires_in(self, instance: Instance, idle: float | None) -> float | None:
        """Seconds until an instance that has been idle for so long is unloaded, if it stays so;
        None if it is not. What a request wanted of an instance of another node is not known."""
        limit = limit_of(self._uses.get(instance.instance_id), self._keep_alive)
        return None if idle is None or limit is None else max(limit - idle, 0.0)

    async def keep(self, instance: Instance, seconds: float) -> None:
        """Have an instance stay for so long after its last request, below 0 for ever; of this node
        or of another."""
        node_id = instance.placement.shards[0].node_id
        if node_id == self._network.peer_id:
            self._keep(instance.instance_id, seconds)
            return
        body: Body = [instance.instance_id, seconds]
        await self._network.request(node_id, KEEP, body, patience=_PATIENCE)

    async def unload(self, instance: Instance) -> bool:
        """Unload an instance, of this node or of another, unless it is in use or pinned; whether it
        is gone."""
        node_id = instance.placement.shards[0].node_id
        if node_id == self._network.peer_id:
            return await self._unload(instance.instance_id)
        try:
            body: Body = instance.instance_id
            return await self._network.request(node_id, UNLOAD, body, patience=_PATIENCE) is True
        except PeerError:
            return False

    def _keep(self, name: str, seconds: float) -> None:
        if use := self._uses.get(name):
            now = asyncio.get_running_loop().time()
            self._uses[name] = replace(use, keep_alive=seconds, used=True, since=now)
            self._plan()

    def _count(self, name: str, change: int) -> None:
        if use := self._uses.get(name):
            now = asyncio.get_running_loop().time()
            self._uses[name] = replace(use, open=use.open + change, used=True, since=now)
            self._plan()

    def _plan(self) -> None:
        loop = asyncio.get_running_loop()
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._closed:
            return
        plan = plan_idle(self._state, self._uses, self._keep_alive, loop.time())
        for name in plan.unload:
            log.info("Instance %s is unloaded: nobody uses it.", name)
            task = loop.create_task(self._unload(name))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            # The task has not begun, and must not be planned again.
            self._uses[name] = replace(self._uses[name], leaving=True)
        if plan.wake is not None:
            self._timer = loop.call_at(plan.wake, self._plan)

    async def _unload(self, name: str) -> bool:
        use, instance = self._uses.get(name), self._state.instances.get(name)
        if instance is None:
            return True
        if use is None or use.open or not may_go(self._state, instance):
            return False
        self._uses[name] = replace(use, leaving=True)
        try:
            await self._delete(name)
        except ExoError as error:
            log.warning("Instance %s could not be unloaded: %s", name, error)
            return False
        finally:
            if use := self._uses.get(name):
                later = asyncio.get_running_loop().time() + _RETRY
                self._uses[name] = replace(use, leaving=False, since=later)
                self._plan()
        return True

    async def _serve_keep(self, _: str, body: Body) -> Body:
        match body:
            case [str(name), int() | float() as seconds]:
                self._keep(name, float(seconds))
            case _:
                raise ProtocolError("What is to be kept cannot be read.")
        return None

    async def _serve_unload(self, _: str, body: Body) -> Body:
        return isinstance(body, str) and await self._unload(body)
