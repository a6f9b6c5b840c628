"""A chunk of a prompt in parts, each through some of the layers, so that steps of others can be
computed between them.

The graph of the whole chunk is built at once. What is in the cache of a layer follows from all
layers before it, so whoever evaluates the first caches computes the layers up to there, and what
they hand on stays for the rest. Whatever a model does between its layers, in which order it has
its caches, and where it is cut: all parts together evaluate the same graph, and only how long each
of them takes depends on it. What is not evaluated yet stands in the caches as a graph, so they can
be copied or dropped between two parts like any others.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from exo.inference.mlx.adapter import Cache
from exo.inference.mlx.stage import Stage


def slices_of(stage: Stage) -> int:
    """Into how many parts of about a layer each a chunk can be divided. The last cache needs the
    layers before it, but nothing of what its own layer makes of it."""
    return max(len(stage.make_cache()) - 1, 1)


def filled(caches: Sequence[Cache], part: int, parts: int) -> Sequence[Cache]:
    """The caches that are filled when part number `part`, from 0, of so many is done."""
    return caches[: 1 + (len(caches) - 1) * (part + 1) // parts]


@dataclass
class Unfinished:
    """A chunk of which `done` parts of so many are computed, or are being so."""

    parts: int
    done: int = 0

    def next(self, caches: Sequence[Cache], part: int) -> Sequence[Cache]:
        """What has to be evaluated to the end of that part."""
        self.done = part + 1
        return filled(caches, part, self.parts)
