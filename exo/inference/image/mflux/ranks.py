"""One picture over several ranks, each with some of the blocks.

Rank 0 has the words, the VAE and the first blocks. Each rank goes on with its own blocks; what the
last one's give goes back to rank 0, which waits for it within the step. Of patches of a picture
several are on their way at once.
"""

from collections.abc import Sequence

import mlx.core as mx

from exo.errors import RingError
from exo.inference.image.mflux.family import Family, Work
from exo.inference.image.mflux.frames import Answering, Asking, Await
from exo.inference.image.mflux.patches import About, Patch
from exo.inference.image.mflux.split import Stage
from exo.inference.ring.events import Ring
from exo.inference.ring.frames import Frame, Kind


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
        return self._all(work, [About(which, step) for which in self._looks(work)], latents)

    def look_and_keep(self, work: Work, step: int, latents: mx.array) -> list[mx.array]:
        """As `look`; every rank keeps its blocks' keys and values, for patches to come."""
        looks = [About(which, step, keep=True) for which in self._looks(work)]
        return self._all(work, looks, latents)

    def begin(self, work: Work, step: int, patch: Patch, latents: mx.array) -> None:
        """Send the looks at a patch on their way; of the latents only its own are looked at."""
        self._begin(work, self._at(work, step, patch), latents)

    def finish(self, work: Work, step: int, patch: Patch, latents: mx.array) -> list[mx.array]:
        """What came of the looks that were begun first: as large as all latents, and of no meaning
        but at the patch's own."""
        return self._finish(work, self._at(work, step, patch), latents)

    def forget(self) -> None:
        """Have all ranks drop what they keep, and what is on its way.

        Raises:
            RingError: the ring is gone, and what the others kept with it.
        """
        self._stage.stale.forget()
        self._asking.forget()

    def _looks(self, work: Work) -> range:
        return range(self._family.looks(work.encoded, work.schedule))

    def _at(self, work: Work, step: int, patch: Patch) -> list[About]:
        return [About(which, step, patch=patch) for which in self._looks(work)]

    def _all(self, work: Work, looks: Sequence[About], latents: mx.array) -> list[mx.array]:
        self._begin(work, looks, latents)
        return self._finish(work, looks, latents)

    def _begin(self, work: Work, looks: Sequence[About], latents: mx.array) -> None:
        for look in looks:
            self._asking.ask(work, look, self._stage.begin(work, look, latents))

    def _finish(self, work: Work, looks: Sequence[About], latents: mx.array) -> list[mx.array]:
        return [self._seen(work, look, latents) for look in looks]

    def _seen(self, work: Work, look: About, latents: mx.array) -> mx.array:
        """Go on with what the last rank made of a look that was sent."""
        tensors = self._asking.answer(look)
        try:
            return self._stage.finish(work, look, latents, tensors)
        except RingError as error:
            self._asking.give_up(error)
            raise


class Follower:
    """Any other rank, over one life of a ring."""

    def __init__(self, family: Family, stage: Stage, ring: Ring, life: int, *, last: bool) -> None:
        self._stage = stage
        self._ring = ring
        self._life = life
        self._answering = Answering(family, ring, life)
        self._last = last

    def receive(self, frame: Frame) -> None:
        """Compute what the rank before sent, and send it on.

        Raises:
            RingError: it makes no sense, or the ring is gone.
        """
        if frame.kind is Kind.FORGET:
            self._stage.stale.forget()
            self._ring.send(frame, self._life)
            return
        asked = self._answering.read(frame)
        left = self._stage.go_on(asked.work, asked.look, asked.tensors)
        if self._last:
            self._answering.answer(asked, left)
        else:
            self._answering.pass_on(asked, left)
