"""What a family of models does for a picture; the loop around it is the same for all.

Latents are what is denoised. They are packed: each family has its own order of axes, and the loop
only adds and scales them. Plain ones are (1, channels, height / 8, width / 8).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

import mlx.core as mx
from mlx import nn
from PIL import Image

from exo.inference.image.mflux.asked import Asked
from exo.inference.image.mflux.patches import Cut, Layout
from exo.inference.image.mflux.schedule import Schedule

# What `Family.encode` hands to `Family.look`: each family's own arrays.
Encoded = dict[str, Any]


@dataclass(frozen=True)
class Work:
    """One picture as the transformer gets it: what all its steps have in common."""

    asked: Asked
    schedule: Schedule
    encoded: Encoded


class Family(Protocol):
    """The models of one family, with their weights."""

    channels: int
    # Whether images are references that the model looks at; if not, a picture begins from one.
    references: bool
    # Along which axis of packed latents the picture's rows are.
    row_axis: int
    # mflux's module in which all blocks take `scaled_dot_product_attention` from its global name.
    attention: ModuleType

    def modules(self) -> list[tuple[str, nn.Module]]:
        """The parts that have weights, by name."""
        ...

    def blocks(self) -> list[list[nn.Module]]:
        """The lists of the transformer's blocks that may be computed in several places, in the
        order in which they are computed."""
        ...

    def refiners(self) -> list[nn.Module]:
        """The list of blocks that go before these, of the picture without words."""
        ...

    def layout(self, which: int, encoded: Encoded, asked: Asked) -> Layout:
        """The tokens of such a look."""
        ...

    def cut_inputs(self, inputs: dict[str, Any], cut: Cut, *, refining: bool) -> dict[str, Any]:
        """A block's inputs with what they say of each token (positions) cut to a patch; its tokens
        are already. Masks of keys stay, since those are of all tokens."""
        ...

    def schedule(self, asked: Asked, steps: int) -> Schedule: ...

    def encode(self, asked: Asked) -> Encoded:
        """What the model has to know of the words and the reference images in every step."""
        ...

    def noise(self, seed: int, asked: Asked) -> mx.array:
        """The packed latents of nothing but noise, the same for the same seed."""
        ...

    def latents(self, image: Image.Image, asked: Asked) -> mx.array:
        """The packed latents of an image, stretched to the picture's size."""
        ...

    def pack(self, plain: mx.array, asked: Asked) -> mx.array:
        """Plain latents in this family's order."""
        ...

    def looks(self, encoded: Encoded, schedule: Schedule) -> int:
        """How often the transformer looks at the latents in a step: twice with guidance by what
        is not wanted."""
        ...

    def look(
        self, which: int, step: int, latents: mx.array, encoded: Encoded, schedule: Schedule
    ) -> mx.array:
        """Noise less picture, as the transformer sees them in these latents: with the prompt in
        mind, or with the negative one."""
        ...

    def guide(self, seen: Sequence[mx.array], schedule: Schedule) -> mx.array:
        """What to go by, of everything that was seen in a step."""
        ...

    def pixels(self, latents: mx.array, asked: Asked) -> mx.array:
        """(1, 3, height, width), from -1 to 1."""
        ...


# Has the transformer look as often as a step needs, on this node or on several: at which step, at
# which latents.
Look = Callable[[Work, int, mx.array], list[mx.array]]


def look_alone(family: Family) -> Look:
    """The whole transformer is on this node."""

    def look(work: Work, step: int, latents: mx.array) -> list[mx.array]:
        return [
            family.look(which, step, latents, work.encoded, work.schedule)
            for which in range(family.looks(work.encoded, work.schedule))
        ]

    return look
