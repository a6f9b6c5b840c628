import mlx.core as mx
from mflux.models.common.config.model_config import ModelConfig

class _Scheduler:
    sigmas: mx.array
    timesteps: mx.array
    def step(self, *, noise: mx.array, timestep: int, latents: mx.array) -> mx.array: ...

class Config:
    guidance: float
    scheduler: _Scheduler
    def __init__(
        self,
        *,
        model_config: ModelConfig,
        num_inference_steps: int,
        width: int,
        height: int,
        guidance: float,
        scheduler: str,
    ) -> None: ...
