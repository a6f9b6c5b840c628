"""A request for pictures, to every instance that takes part in it: the shell around `Spread`."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from functools import partial

from exo.cluster.placement.cost import speed
from exo.cluster.placement.memory import Cast
from exo.cluster.placement.wanted import NodeResources
from exo.cluster.requests import Output
from exo.cluster.spread import Drawer, Part, Spread
from exo.cluster.state import ClusterState, Instance, Sharding
from exo.errors import EngineError, ExoError, RequestError
from exo.inference.image.types import DrawFinished, DrawRequest

# Has one instance, by its id, draw what it is asked: see `Generations.run`.
Run = Callable[[str, DrawRequest], AsyncGenerator[Output]]


def able(instances: Sequence[Instance], request: DrawRequest) -> Sequence[Instance]:
    """Those that draw it as it is asked: patches are for models that are split over nodes.

    Raises:
        RequestError: there are none.
    """
    if request.patches is None:
        return instances
    split = [
        each
        for each in instances
        if len(each.placement.shards) > 1 and each.placement.sharding is Sharding.PIPELINE
    ]
    if not split:
        raise RequestError(
            "Every node that draws with this model has all of it, and draws no patches.",
            hint="Leave `patches` out: it is for models that are split over several nodes.",
            param="advanced_params.patches",
        )
    return split


def drawers(
    state: ClusterState, instances: Sequence[Instance], load: Callable[[Instance], int]
) -> list[Drawer]:
    """How fast each of these is, as far as its devices have been measured, and how busy."""
    lie = Counter(shard.node_id for each in instances for shard in each.placement.shards)
    return [Drawer(each.instance_id, _pace(state, each, lie), load(each)) for each in instances]


def _pace(state: ClusterState, instance: Instance, lie: Counter[str]) -> float:
    """Nodes of one picture take turns, or compute half of a step each; instances on one node share
    it."""
    seconds: list[float] = []
    for shard in instance.placement.shards:
        node_id, node = shard.node_id, state.nodes.get(shard.node_id)
        device = node.device if node else None
        resources = NodeResources(node_id, node_id, device, 0, shards=lie[node_id] - 1)
        blocks = shard.end_layer - shard.start_layer
        seconds.append(blocks / speed(resources, instance.card, cast=Cast.NOTHING).flops)
    if instance.placement.sharding is Sharding.GUIDANCE:
        return 2 / max(seconds)
    return 1 / sum(seconds)


async def draw(spread: Spread, run: Run) -> AsyncGenerator[Output]:
    """What comes of all parts, as one request: Accepted, what becomes of the pictures,
    DrawFinished. Closed early, all are cancelled.

    Raises:
        ExoError: no instance could draw what is left, or one refused what all would refuse.
    """
    clock = asyncio.get_running_loop().time
    began = clock()
    async with _Parts(run) as parts:
        parts.start(spread.begin())
        while not spread.done:
            part, said = await parts.said.get()
            match said:
                case ExoError():
                    parts.start(spread.lost(part, said))
                case BaseException():
                    raise said
                case DrawFinished(stats=stats):
                    parts.start(spread.finished(part, stats))
                case _:
                    for each in spread.heard(part, said):
                        yield each
        yield spread.end(clock() - began)


class _Parts:
    """The parts that are being drawn, each with a task that puts what comes of it, and how it
    fails, into `said`. None outlives the `async with`."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._tasks: set[asyncio.Task[None]] = set()
        self.said: asyncio.Queue[tuple[Part, Output | BaseException]] = asyncio.Queue()

    async def __aenter__(self) -> "_Parts":
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def start(self, parts: Sequence[Part]) -> None:
        for part in parts:
            task = asyncio.create_task(self._listen(part))
            self._tasks.add(task)
            task.add_done_callback(partial(self._ended, part))

    async def _listen(self, part: Part) -> None:
        async with aclosing(self._run(part.instance_id, part.request)) as outputs:
            async for output in outputs:
                self.said.put_nowait((part, output))
                if isinstance(output, DrawFinished):
                    return
        raise EngineError("The runner ended the pictures without finishing them.")

    def _ended(self, part: Part, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self.said.put_nowait((part, error))
