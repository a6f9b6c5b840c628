"""One picture over two ranks that have the whole transformer each: of a step that is two passes,
one with the prompt in mind and one with the negative one, each computes one.

Rank 0 has the words and the VAE. What both compute is what one would compute, so that the picture
is the same to the last bit.
"""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

import mlx.core as mx

from exo.errors import RingError
from exo.inference.image.mflux.family import Family, Work
from exo.inference.image.mflux.frames import Answering, Asking, Await
from exo.inference.image.mflux.patches import About
from exo.inference.ring.events import Ring
from exo.inference.ring.frames import Frame


class FirstPass:
    """Rank 0, over one life of a ring."""

    def __init__(self, family: Family, ring: Ring, life: int, wait: Await) -> None:
        self._family = family
        self._asking = Asking(ring, life, wait)

    def look(self, work: Work, step: int, latents: mx.array) -> list[mx.array]:
        """All looks of a step: the first here, the other one, if there is one, there.

        Raises:
            RingError: the ring is gone, or the other rank sent no such thing.
        """
        others = range(1, self._family.looks(work.encoded, work.schedule))
        for which in others:
            self._asking.ask(work, About(which, step), [latents])
        own = self._family.look(0, step, latents, work.encoded, work.schedule)
        mx.eval(own)
        return [own, *(self._other(which, step, own) for which in others)]

    def _other(self, which: int, step: int, like: mx.array) -> mx.array:
        found = self._asking.answer(About(which, step))
        if [(each.shape, each.dtype) for each in found] != [(like.shape, like.dtype)]:
            error = RingError("The other rank answered with what is no look at this picture.")
            self._asking.give_up(error)
            raise error
        return found[0]


class OtherPass:
    """The other rank, over one life of a ring."""

    def __init__(self, family: Family, ring: Ring, life: int) -> None:
        self._family = family
        self._answering = Answering(family, ring, life)

    def receive(self, frame: Frame) -> None:
        """Compute the pass that rank 0 asks for, and send what comes of it.

        Raises:
            RingError: it makes no sense, or the ring is gone.
        """
        look = self._answering.read(frame)
        work, own = look.work, self._family.noise(0, look.work.asked)
        passes = self._family.looks(work.encoded, work.schedule)
        if [t.shape for t in look.tensors] != [own.shape] or not 0 < look.look.which < passes:
            raise RingError("What came from the rank before is no picture to look at.")
        which, step = look.look.which, look.look.step
        seen = self._family.look(which, step, look.tensors[0], work.encoded, work.schedule)
        mx.eval(seen)
        self._answering.answer(look, [seen])
