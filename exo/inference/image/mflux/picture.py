"""One picture: noise, made less step by step."""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

from collections.abc import Callable, Generator
from contextlib import closing

import mlx.core as mx

from exo.errors import EngineError
from exo.inference.image.checks import check
from exo.inference.image.engine import DrawSpec, Stroke
from exo.inference.image.mflux.asked import Asked
from exo.inference.image.mflux.canvas import Mask, open_image, open_mask, to_image, to_png
from exo.inference.image.mflux.family import Encoded, Family, Look, Work
from exo.inference.image.mflux.pipeline import Advance, Pipeline, Rows, whole_steps
from exo.inference.image.mflux.ranks import Head
from exo.models.image_traits import ImageTraits

# How much of an image stays where a picture begins from one and nothing is said: a sketch of it.
DEFAULT_STRENGTH = 0.3

Encode = Callable[[Asked], Encoded]


def _all(array: mx.array) -> mx.array:
    return array


class MfluxPicture:
    """A picture that is being drawn. `encode` is the family's, or one that remembers. `head` is
    what looks at patches, for a picture that is asked for in patches."""

    def __init__(
        self,
        family: Family,
        traits: ImageTraits,
        spec: DrawSpec,
        encode: Encode,
        look: Look,
        head: Head | None = None,
    ) -> None:
        self._family = family
        self._traits = traits
        self._spec = spec
        self._encode = encode
        self._look = look
        self._head = head
        self._asked: Asked | None = None
        self._mask: Mask | None = None
        self._shown: mx.array | None = None
        self._png: bytes | None = None

    def steps(self) -> Generator[Stroke]:
        spec, family = self._spec, self._family
        check(spec, self._traits)
        images = tuple(open_image(png) for png in spec.images)
        mask = None if spec.mask is None else open_mask(spec.mask)
        guidance = spec.guidance if spec.guidance is not None else self._traits.default_guidance
        asked = self._asked = Asked(
            prompt=spec.prompt,
            negative_prompt=spec.negative_prompt,
            guidance=guidance or 0.0,
            width=spec.width,
            height=spec.height,
            images=images,
        )
        schedule = family.schedule(asked, spec.steps)
        work = Work(asked, schedule, self._encode(asked))
        noise = family.noise(spec.seed, asked)
        first = schedule.first_step(self._strength())
        own, may_change = None, None
        if images and (first or mask):
            own = family.latents(images[0], asked)
        if own is not None and mask:
            self._mask = Mask(mask, images[0], spec.width, spec.height)
            may_change = family.pack(self._mask.plain(family.channels), asked)
        latents = noise if own is None or not first else schedule.mix(first, own, noise)

        def advance(
            step: int, before: mx.array, velocity: mx.array, rows: Rows
        ) -> tuple[mx.array, mx.array]:
            after = schedule.advance(step, before, velocity)
            if own is not None and may_change is not None:
                kept = schedule.mix(step + 1, rows(own), rows(noise))
                after = mx.where(rows(may_change) > 0, after, kept)
            return after, schedule.picture(step + 1, after, velocity)

        with closing(self._denoise(work, first, latents, advance)) as steps:
            for done, shown in enumerate(steps, 1):
                self._shown, self._png = shown, None
                near = self._whole_until(first) < first + done
                yield Stroke(done, spec.steps - first, approximate=near)

    def _denoise(
        self, work: Work, first: int, latents: mx.array, advance: Advance
    ) -> Generator[mx.array]:
        """What the picture shows after each step."""
        spec, patched = self._spec, self._whole_until(first)
        pipeline = None
        if self._head and spec.patches and patched < spec.steps:
            pipeline = Pipeline(self._family, self._head, work, spec.patches)
        try:
            for step in range(first, patched):
                keeps = pipeline is not None and step == patched - 1
                look = self._head.look_and_keep if keeps and self._head else self._look
                velocity = self._family.guide(look(work, step, latents), work.schedule)
                latents, shown = advance(step, latents, velocity, _all)
                mx.eval(latents, shown)
                yield shown
            if pipeline is not None:
                yield from pipeline.steps(patched, spec.steps, latents, advance)
        finally:
            if pipeline is not None:
                pipeline.close()

    def _whole_until(self, first: int) -> int:
        """Before which step all looks are at the whole picture."""
        spec = self._spec
        if spec.patches is None:
            return spec.steps
        return first + whole_steps(spec.steps - first, spec.sync_steps)

    def png(self) -> bytes:
        if self._shown is None or self._asked is None:
            raise EngineError("There is no picture before its first step.")
        if self._png is None:
            image = to_image(self._family.pixels(self._shown, self._asked))
            self._png = to_png(self._mask.apply(image) if self._mask else image)
        return self._png

    def _strength(self) -> float:
        spec = self._spec
        if not spec.images:
            return 0.0
        if spec.strength is not None:
            return spec.strength
        # What the mask covers is drawn anew, unless it is asked for that something stays.
        return 0.0 if self._family.references or spec.mask is not None else DEFAULT_STRENGTH
