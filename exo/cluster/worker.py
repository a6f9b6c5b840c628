"""This node's runners: the shell around `plan`.

Woken by a change of the state, the end of a runner or a timer, never by polling.
"""

import asyncio
import logging
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exo.cluster import groups
from exo.cluster.loads import WorkerOptions, load_message
from exo.cluster.plan import (
    STEADY_SECONDS,
    Slot,
    StartRunner,
    StopRunner,
    WakeAt,
    is_hopeless,
    plan,
)
from exo.cluster.requests import Asked, OpenRequests, Output
from exo.cluster.rings import Hosts, ring_of
from exo.cluster.state import (
    ClusterState,
    Instance,
    RingEnd,
    Runner,
    RunnerStatus,
    Shard,
    runner_key,
)
from exo.errors import (
    EngineError,
    ExoError,
    Forbidden,
    ModelInvalid,
    ModelNotFound,
    RingError,
    RunnerDied,
    Unavailable,
)
from exo.inference.messages import (
    Connect,
    DraftStats,
    Failed,
    FromRunner,
    Listening,
    LoadStats,
    Progress,
    Ready,
    RingLost,
    RingStats,
)
from exo.inference.runner.process import QUIET_SECONDS, Quiet, RunnerProcess
from exo.logs import outside
from exo.models.card import ModelCard

log = logging.getLogger(__name__)

Report = Callable[[Runner], Awaitable[None]]
Locate = Callable[[ModelCard], Awaitable[Path]]


@dataclass
class _Local:
    """A shard of this node: its slot in the plan, its process and its open requests; `epoch` is
    that of the ring that the process was told to form."""

    slot: Slot = field(default_factory=lambda: Slot(alive=False))
    process: RunnerProcess | None = None
    requests: OpenRequests | None = None
    runner: Runner | None = None
    ready_at: float | None = None
    failure: ExoError | None = None
    epoch: str | None = None
    quiet: bool = False
    stats: RingStats | None = None
    drafts: DraftStats | None = None
    load: LoadStats | None = None
    task: asyncio.Task[None] | None = None

    def keep(self, told: RingStats | DraftStats | LoadStats) -> None:
        match told:
            case RingStats():
                self.stats = told
            case DraftStats():
                self.drafts = told
            case LoadStats():
                self.load = told


class Worker:
    """Keeps this node's runners as the state wants them."""

    def __init__(
        self, options: WorkerOptions, report: Report, locate: Locate, hosts: Hosts
    ) -> None:
        self._options = options
        self._locate = locate
        self._hosts = hosts
        self._report = report
        self._locals: dict[str, _Local] = {}
        self._state = ClusterState()
        self._spares: list[RunnerProcess] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._leaving: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def reconcile(self, state: ClusterState) -> None:
        """Do what the state asks of this node."""
        if self._closed:
            return
        self._state = state
        loop = asyncio.get_running_loop()
        if self._timer:
            self._timer.cancel()
            self._timer = None
        slots = {key: local.slot for key, local in self._locals.items()}
        wakes: list[float] = []
        for action in plan(state, self._options.node_id, slots, loop.time()):
            match action:
                case StartRunner():
                    self._start(action.instance, action.shard)
                case StopRunner(key=key):
                    self._stop(key)
                case WakeAt(time=time):
                    wakes.append(time)
        self._form_rings()
        if wakes:
            self._timer = loop.call_at(min(wakes), lambda: self.reconcile(self._state))

    def _form_rings(self) -> None:
        """Tell runners of several who is next to them, when that is known or has changed."""
        for instance in self._state.instances.values():
            for shard in instance.placement.shards:
                local = self._locals.get(runner_key(instance.instance_id, shard.rank))
                if local is None or local.runner is None or local.runner.ring is None:
                    continue
                try:
                    ring = ring_of(self._state, instance, shard.rank, self._hosts)
                except RingError as error:
                    if local.runner.error != str(error):
                        self._spawn(self._tell(local, status=RunnerStatus.FAILED, error=str(error)))
                    continue
                if ring is not None and ring.epoch != local.epoch and local.process:
                    local.epoch = ring.epoch
                    local.process.send(Connect(ring=ring))
                    if local.runner.status is RunnerStatus.FAILED:
                        self._spawn(self._tell(local, status=RunnerStatus.CONNECTING, error=None))

    @property
    def runners(self) -> tuple[Runner, ...]:
        """This node's runners, as they are."""
        return tuple(local.runner for local in self._locals.values() if local.runner)

    @property
    def ring_stats(self) -> dict[str, RingStats]:
        """How the rings work whose rank 0 is here, by instance."""
        return {
            local.runner.instance_id: local.stats
            for local in self._locals.values()
            if local.runner and local.stats
        }

    @property
    def draft_stats(self) -> dict[str, DraftStats]:
        """What became of the drafts that are made here, by instance."""
        return {
            local.runner.instance_id: local.drafts
            for local in self._locals.values()
            if local.runner and local.drafts
        }

    @property
    def load_stats(self) -> dict[str, LoadStats]:
        """What the instances whose rank 0 is here have to do, by instance."""
        return {
            local.runner.instance_id: local.load
            for local in self._locals.values()
            if local.runner and local.load
        }

    def load(self, instance: Instance) -> int:
        """Requests that this node's rank 0 of the instance is working on."""
        local = self._locals.get(runner_key(instance.instance_id, 0))
        return len(local.requests) if local and local.requests else 0

    def generate(self, instance: Instance, request: Asked) -> AsyncGenerator[Output]:
        """Run a request on an instance whose rank 0 is here.

        Raises:
            Unavailable: its runner is not ready.
        """
        local = self._locals.get(runner_key(instance.instance_id, 0))
        if local is None or local.requests is None or local.ready_at is None or local.quiet:
            raise Unavailable(
                f"{instance.card.model_id} is not ready.", hint="Try again shortly.", retry_after=1
            )
        return local.requests.run(request)

    @property
    def open_requests(self) -> int:
        """Requests that this node's runners are working on."""
        return sum(len(local.requests) for local in self._locals.values() if local.requests)

    async def wait_idle(self) -> None:
        """Return when no request is open."""
        for local in list(self._locals.values()):
            if local.requests:
                await local.requests.wait_idle()

    async def freed(self, patience: float) -> None:
        """Return when the runners that were stopped have ended, and their memory is free."""
        if self._leaving:
            await asyncio.wait(set(self._leaving), timeout=patience)

    async def keep_spares(self) -> None:
        """Start spare runners, so that the next instance does not wait for imports."""
        while len(self._spares) < self._options.spare_runners and not self._closed:
            try:
                spare = await RunnerProcess.start(self._options.engine, self._options.environment)
            except EngineError as error:
                log.warning("No spare runner: %s", error)
                return
            self._spares.append(spare)

    async def close(self) -> None:
        """Stop every runner."""
        self._closed = True
        if self._timer:
            self._timer.cancel()
        for key in list(self._locals):
            self._stop(key)
        for spare in self._spares:
            self._spawn(spare.stop())
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        # A runner outlives the request that its instance was placed for.
        task = asyncio.get_running_loop().create_task(work, context=outside())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _start(self, instance: Instance, shard: Shard) -> None:
        key = runner_key(instance.instance_id, shard.rank)
        local = self._locals.setdefault(key, _Local())
        local.slot = Slot(True, local.slot.failures, local.slot.failed_at)
        local.task = self._spawn(self._supervise(key, local, instance, shard))

    def _stop(self, key: str) -> None:
        local = self._locals.pop(key)
        if local.task and not local.task.done():
            self._leaving.add(local.task)
            local.task.add_done_callback(self._leaving.discard)
        if local.process:
            local.process.kill("its instance was deleted" if not self._closed else "exo stops")

    async def _supervise(self, key: str, local: _Local, instance: Instance, shard: Shard) -> None:
        """One life of one runner, from start to end."""
        local.ready_at, local.failure, local.epoch, local.quiet = None, None, None, False
        local.stats = local.drafts = local.load = None
        local.runner = Runner(
            runner_id=uuid.uuid4().hex,
            instance_id=instance.instance_id,
            rank=shard.rank,
            status=RunnerStatus.STARTING,
            error=local.runner.error if local.runner else None,
            restarts=local.slot.failures,
        )
        try:
            groups.check_allowed(instance, mlx_links=self._options.mlx_links)
            path = await self._locate(instance.card)
            draft = instance.draft.card if instance.draft and shard.rank == 0 else None
            draft_path = await self._locate(draft) if draft else None
            process = await self._take_process()
        except (EngineError, Forbidden, ModelInvalid, ModelNotFound) as error:
            await self._ended(key, local, error)
            return
        local.process = process
        local.requests = OpenRequests(process.send)
        if self._locals.get(key) is not local:
            process.kill("its instance was deleted")
        await self._tell(local, pid=process.pid)
        load = load_message(instance, shard, path, self._options)
        process.send(load.model_copy(update={"draft_path": draft_path}))
        async for message in process.messages():
            ready = local.ready_at is not None
            if isinstance(message, Quiet) and ready and groups.is_grouped(instance):
                process.kill(f"it said nothing for {QUIET_SECONDS} s, and its group gave it up")
            else:
                await self._heard(local, message)
        died = await process.wait()
        await self._ended(key, local, local.failure or died)

    async def _take_process(self) -> RunnerProcess:
        while self._spares:
            spare = self._spares.pop(0)
            if spare.alive:
                break
            await spare.wait()
        else:
            spare = await RunnerProcess.start(self._options.engine, self._options.environment)
        if not self._closed:
            self._spawn(self.keep_spares())
        return spare

    async def _heard(self, local: _Local, message: FromRunner | Quiet) -> None:
        """A runner that is quiet takes no requests; what it has left off, it goes on with."""
        if isinstance(message, Quiet):
            if local.ready_at is None:
                return
            local.quiet = True
            reason = f"The runner has not answered for {QUIET_SECONDS} s."
            log.warning(reason)
            if local.requests:
                local.requests.abandon(RunnerDied(reason, hint="Try again.", retry_after=2))
            return
        local.quiet = False
        await self._received(local, message)

    async def _received(self, local: _Local, message: FromRunner) -> None:
        match message:
            case Progress(phase="warming"):
                await self._tell(local, status=RunnerStatus.WARMING)
            case Progress(done=done, total=total):
                # The log is no place for every layer of a large model.
                if done % max(1, total // 10) == 0 or done == total:
                    await self._tell(local, status=RunnerStatus.LOADING, done=done, total=total)
            case Listening():
                ring = RingEnd(
                    port=message.port, certificate=message.certificate, facts=message.facts
                )
                await self._tell(local, status=RunnerStatus.CONNECTING, ring=ring)
                self._form_rings()
            case RingStats() | DraftStats() | LoadStats():
                local.keep(message)
            case RingLost(reason=reason):
                local.ready_at = None
                await self._tell(local, status=RunnerStatus.CONNECTING, error=reason)
            case Ready(memory=memory):
                local.ready_at = asyncio.get_running_loop().time()
                await self._tell(local, status=RunnerStatus.READY, memory=memory, error=None)
            case Failed(error=error):
                local.failure = error.to_error()
                if local.process:
                    local.process.kill(error.message)
            case _:
                if local.requests:
                    local.requests.deliver(message)

    async def _ended(self, key: str, local: _Local, error: ExoError) -> None:
        """A runner is gone: tell the state, which starts its successor, then its requests: a
        client that tries again at once must find that it has to wait."""
        now = asyncio.get_running_loop().time()
        # That another was lost is no failure of its own.
        blameless = isinstance(error, RingError)
        steady = local.ready_at is not None and (blameless or now - local.ready_at > STEADY_SECONDS)
        requests, local.process = local.requests, None
        if self._locals.get(key) is local:
            log.warning("%s", error)
            permanent = isinstance(error, Forbidden | ModelInvalid | ModelNotFound)
            failures = 1 if steady else local.slot.failures + 1
            local.slot = Slot(False, failures, now, permanent)
            over = permanent or is_hopeless(failures)
            status = RunnerStatus.FAILED if over else RunnerStatus.STARTING
            await self._tell(
                local, status=status, pid=None, ring=None, error=str(error), restarts=failures
            )
        if local.requests is requests:  # Its successor may have begun already.
            local.requests, local.ready_at = None, None
        if requests:
            requests.fail(error)

    async def _tell(self, local: _Local, **changes: object) -> None:
        if local.runner is not None:
            local.runner = local.runner.model_copy(update=changes)
            await self._report(local.runner)
