"""Who draws which of a request's pictures, where several instances have the model: pure.

Each instance is given a run of pictures, as long as it is fast and free, so that all are done at
about the same time. What an instance that is lost has not drawn is drawn again by the first of the
others that has nothing to do: picture i has the seed + i, whoever draws it. An instance that was
lost is not asked again for the same request.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from exo.cluster.requests import Output
from exo.errors import ExoError, InstanceNotFound, RequestError
from exo.inference.image.types import (
    DrawFinished,
    Drawing,
    Drawn,
    DrawRequest,
    DrawStats,
    Preview,
)
from exo.inference.messages import Accepted


@dataclass(frozen=True)
class Drawer:
    """An instance that can draw: how many pictures in a time that is the same for all, and how many
    requests it works on already."""

    instance_id: str
    pace: float
    backlog: int = 0


@dataclass
class Part:
    """A run of pictures for one instance, and which of them it has not drawn yet."""

    instance_id: str
    request: DrawRequest
    left: deque[int] = field(default_factory=deque[int])


def counts(pictures: int, drawers: Sequence[Drawer]) -> list[int]:
    """So many pictures for each: every one goes to whoever is done with it first."""
    found = [0] * len(drawers)
    for _ in range(pictures):
        done = [(d.backlog + n + 1) / d.pace for d, n in zip(drawers, found, strict=True)]
        found[done.index(min(done))] += 1
    return found


class Spread:
    """One request over several instances, of which the best is named first."""

    def __init__(self, request: DrawRequest, drawers: Sequence[Drawer]) -> None:
        self._request = request
        self._drawers = {drawer.instance_id: drawer for drawer in drawers}
        self._idle = list(self._drawers)
        self._at_work: dict[str, Part] = {}
        self._given = 0
        # Pictures of those that were lost, which nobody draws yet.
        self._spare: deque[int] = deque()
        self._accepted = False
        self._steps: dict[int, int] = {}
        self._previews: dict[int, int] = {}
        self._drawn: set[int] = set()
        self._stats: list[DrawStats] = []

    def begin(self) -> list[Part]:
        """What is to be asked of whom."""
        drawers = [self._drawers[instance_id] for instance_id in self._idle]
        parts: list[Part] = []
        first = self._request.first
        for drawer, count in zip(drawers, counts(self._request.n, drawers), strict=True):
            if count:
                parts.append(self._give(drawer.instance_id, range(first, first + count)))
                first += count
        return parts

    @property
    def done(self) -> bool:
        """Whether nothing is at work any more."""
        return not self._at_work

    def heard(self, part: Part, output: Output) -> list[Output]:
        """What the client is to be told of what an instance says of its part. What it has been told
        of a picture that is drawn again is not repeated."""
        match output:
            case Accepted():
                fresh, self._accepted = not self._accepted, True
            case Drawing(index=index, step=step):
                fresh = step > self._steps.get(index, 0)
                self._steps[index] = max(step, self._steps.get(index, 0))
            case Preview(index=index, number=number):
                fresh = number >= self._previews.get(index, 0)
                self._previews[index] = max(number + 1, self._previews.get(index, 0))
            case Drawn(index=index):
                fresh = index not in self._drawn
                self._drawn.add(index)
                part.left.remove(index)
            case _:
                fresh = False
        request_id = self._request.request_id
        return [output.model_copy(update={"request_id": request_id})] if fresh else []

    def finished(self, part: Part, stats: DrawStats) -> list[Part]:
        """An instance has drawn its part; what it or others are to draw now."""
        del self._at_work[part.instance_id]
        self._idle.append(part.instance_id)
        self._stats.append(stats)
        return self._hand_out()

    def lost(self, part: Part, error: ExoError) -> list[Part]:
        """An instance did not draw all of its part: what others are to draw now.

        Raises:
            ExoError: that error, where another instance would say the same, or there is none left.
        """
        del self._at_work[part.instance_id]
        if isinstance(error, RequestError) and not isinstance(error, InstanceNotFound):
            raise error
        self._spare.extend(part.left)
        parts = self._hand_out()
        if self.done and (self._spare or not self._stats):
            raise error
        return parts

    def end(self, seconds: float) -> DrawFinished:
        """The end of the whole request, which took so many seconds."""
        stats, pictures = self._stats, sum(each.images for each in self._stats)
        if len(stats) == 1 and pictures == self._request.n:
            return DrawFinished(request_id=self._request.request_id, stats=stats[0])
        passed = sum(each.seconds_per_step * each.images for each in stats)
        whole = DrawStats(
            images=self._request.n,
            steps=max(each.steps for each in stats),
            width=self._request.width,
            height=self._request.height,
            queue_time=min(each.queue_time for each in stats),
            seconds_per_step=passed / pictures,
            total_time=seconds,
            peak_memory_usage=max(each.peak_memory_usage for each in stats),
            approximate=any(each.approximate for each in stats),
        )
        return DrawFinished(request_id=self._request.request_id, stats=whole)

    def _hand_out(self) -> list[Part]:
        """One picture at a time, since others may be free sooner than this one is done."""
        parts: list[Part] = []
        while self._spare and self._idle:
            picture = self._spare.popleft()
            parts.append(self._give(self._idle[0], range(picture, picture + 1)))
        return parts

    def _give(self, instance_id: str, pictures: range) -> Part:
        self._idle.remove(instance_id)
        whole = self._request
        # Its runner knows requests by their ids, and may be asked twice.
        name = f"{whole.request_id}-{self._given}" if self._given else whole.request_id
        self._given += 1
        fields = {"request_id": name, "first": pictures.start, "n": len(pictures)}
        part = Part(instance_id, whole.model_copy(update=fields), deque(pictures))
        self._at_work[instance_id] = part
        return part
