"""One picture over several ranks, each with some of the blocks.

Rank 0 has the words, the VAE and the first blocks. Each rank goes on with its own blocks; what the
last one's give goes back to rank 0, which waits for it within the step.
"""

import mlx.core as mx

from exo.errors import RingError
from exo.inference.image.mflux.family import Family, Work
from exo.inference.image.mflux.frames import Answering, Asking, Await
from exo.inference.image.mflux.split import Stage
from exo.inference.ring.events import Ring
from exo.inference.ring.frames import Frame


class Head:
    """Rank 0, over one life of a ring."""

    def __init__(self, family: Family, stage: Stage, ring: Ring, life: int, wait: Await) -> None:
        self._family = family
        self._stage = stage
        self._asking = Asking(ring, life, wait)

    def look(self, work: Work, step: int, latents: mx.array) -> list[mx.array]:
        """All looks of a step. While others go on with one, this rank begins the next.

        Raises:
            RingError: the ring is gone.
        """
        begun = range(self._family.looks(work.encoded, work.schedule))
        for which in begun:
            tensors = self._stage.begin(work, which, step, latents)
            self._asking.ask(work, which, step, tensors)
        return [self._finish(work, which, step, latents) for which in begun]

    def _finish(self, work: Work, which: int, step: int, latents: mx.array) -> mx.array:
        """Go on with what the last rank made of a look that was sent."""
        tensors = self._asking.answer(which, step)
        try:
            return self._stage.finish(work, which, step, latents, tensors)
        except RingError as error:
            self._asking.give_up(error)
            raise


class Follower:
    """Any other rank, over one life of a ring."""

    def __init__(self, family: Family, stage: Stage, ring: Ring, life: int, *, last: bool) -> None:
        self._stage = stage
        self._answering = Answering(family, ring, life)
        self._last = last

    def receive(self, frame: Frame) -> None:
        """Compute what the rank before sent, and send it on.

        Raises:
            RingError: it makes no sense, or the ring is gone.
        """
        look = self._answering.read(frame)
        left = self._stage.go_on(look.work, look.which, look.step, look.tensors)
        if self._last:
            self._answering.answer(look, left)
        else:
            self._answering.pass_on(look, left)
