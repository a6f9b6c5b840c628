"""Requests to instances, whichever node computes them."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing

from exo.cluster.commands import find_instance
from exo.cluster.keeper import Keeper
from exo.cluster.remote import (
    GENERATE,
    Generation,
    pack_generation,
    pack_output,
    unpack_generation,
    unpack_output,
)
from exo.cluster.replica import Replica
from exo.cluster.requests import Asked, Output
from exo.cluster.state import Instance
from exo.cluster.trace import Recording, recording
from exo.cluster.worker import Worker
from exo.errors import ExoError, PeerError, Unavailable
from exo.inference.types import GenerateRequest
from exo.logs import request_id
from exo.p2p.network import Body, Network


class Generations:
    """Runs requests on this node's runners, or over a link on those of the node of rank 0."""

    def __init__(self, network: Network, replica: Replica, worker: Worker, keeper: Keeper) -> None:
        self._keeper = keeper
        self._network = network
        self._replica = replica
        self._worker = worker
        self._away: Counter[str] = Counter()
        self._idle = asyncio.Event()
        self._idle.set()
        network.services.streams[GENERATE] = self._serve

    def run(self, instance: Instance, request: Asked) -> AsyncGenerator[Output]:
        """What comes of a request: see `OpenRequests.run`. Closed early, it is cancelled.

        Raises:
            Unavailable: the instance is not ready, or its node cannot be reached (any more).
            ExoError: the runner refused the request, or died.
        """
        request = request.model_copy(update={"trace_id": request_id.get()})
        node_id = instance.placement.shards[0].node_id
        if node_id == self._network.peer_id:
            outputs = self._run_here(instance, request)
        else:
            outputs = self._run_away(node_id, instance, request)
        one = recording.get()
        if one is None or (isinstance(request, GenerateRequest) and request.dry):
            return outputs
        return _recorded(one, instance, request, outputs)

    def load(self, instance: Instance) -> int:
        """Requests that this node knows an instance to be working on."""
        return self._worker.load(instance) + self._away[instance.instance_id]

    @property
    def open_requests(self) -> int:
        """Those that run here, for anyone, and those that this node's clients wait for."""
        return self._worker.open_requests + self._away.total()

    async def wait_idle(self) -> None:
        """Return when no request is open."""
        await self._worker.wait_idle()
        await self._idle.wait()

    async def _run_here(self, instance: Instance, request: Asked) -> AsyncGenerator[Output]:
        with self._keeper.using(instance):
            async with aclosing(self._worker.generate(instance, request)) as outputs:
                async for output in outputs:
                    yield output

    async def _run_away(
        self, node_id: str, instance: Instance, request: Asked
    ) -> AsyncGenerator[Output]:
        self._away[instance.instance_id] += 1
        self._idle.clear()
        try:
            body = pack_generation(Generation(instance_id=instance.instance_id, request=request))
            async with aclosing(self._network.stream(node_id, GENERATE, body)) as bodies:
                async for item in bodies:
                    yield unpack_output(item)
        except PeerError as error:
            node = self._replica.state.nodes.get(node_id)
            raise Unavailable(
                f"The link to {node.name if node else node_id}, which computes this, is lost.",
                hint="Try again: exo goes on with another instance, or when the node is back.",
                retry_after=2,
            ) from error
        finally:
            self._away[instance.instance_id] -= 1
            if not self._away.total():
                self._away.clear()
                self._idle.set()

    async def _serve(self, _: str, body: Body) -> AsyncGenerator[Body]:
        asked = unpack_generation(body)
        request_id.set(asked.request.trace_id)  # This task is the request's own.
        instance = find_instance(self._replica.state, asked.instance_id)
        async with aclosing(self._run_here(instance, asked.request)) as outputs:
            async for output in outputs:
                yield pack_output(output)


async def _recorded(
    one: Recording, instance: Instance, request: Asked, outputs: AsyncGenerator[Output]
) -> AsyncGenerator[Output]:
    """The same outputs, written down in the trace of the request that is being answered."""
    generation = one.begin(instance, request, time.monotonic())
    try:
        async with aclosing(outputs):
            async for output in outputs:
                generation.saw(output, time.monotonic())
                yield output
    except ExoError as error:
        generation.fail(error)
        raise
    finally:
        generation.close(time.monotonic())
