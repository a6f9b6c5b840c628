"""How noisy a picture is at each step.

Latents are (1 - s) of the picture and s of the noise, where s, the step's sigma, goes from 1 to 0.
"""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

import mlx.core as mx
from mflux.models.common.config.config import Config
from mflux.models.common.config.model_config import ModelConfig

from exo.inference.image.mflux.asked import Asked

Scheduler = str
LINEAR: Scheduler = "linear"
EULER: Scheduler = "flow_match_euler_discrete"


class Schedule:
    """The steps of one picture, by mflux's own scheduler for its model and size."""

    def __init__(self, model: ModelConfig, scheduler: Scheduler, asked: Asked, steps: int) -> None:
        # mflux's transformers take this object as well; it is given no image, so that it neither
        # skips steps nor reads files.
        self.config = Config(
            model_config=model,
            num_inference_steps=steps,
            width=asked.width,
            height=asked.height,
            guidance=asked.guidance,
            scheduler=scheduler,
        )
        self.steps = steps

    def sigma(self, step: int) -> mx.array:
        return self.config.scheduler.sigmas[step]

    def timestep(self, step: int) -> mx.array:
        return self.config.scheduler.timesteps[step]

    def advance(self, step: int, latents: mx.array, velocity: mx.array) -> mx.array:
        """The latents after that step."""
        return self.config.scheduler.step(noise=velocity, timestep=step, latents=latents)

    def first_step(self, strength: float) -> int:
        """Where to begin so that about so much of an image stays. One step is always computed."""
        if strength <= 0:
            return 0
        return min(self.steps - 1, max(1, int(self.steps * strength)))

    def mix(self, step: int, picture: mx.array, noise: mx.array) -> mx.array:
        """The latents of a picture that is as noisy as before that step."""
        sigma = self.sigma(step)
        return ((1 - sigma) * picture + sigma * noise).astype(noise.dtype)

    def picture(self, step: int, latents: mx.array, velocity: mx.array) -> mx.array:
        """What the latents before that step show, as far as the last velocity tells."""
        return (latents - self.sigma(step) * velocity).astype(latents.dtype)
