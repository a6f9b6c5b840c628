from typing import Any

import mlx.core as mx
from mflux.models.common.config.model_config import ModelConfig
from mlx import nn

class _Transformer(nn.Module):
    transformer_blocks: list[nn.Module]
    def __call__(self, **inputs: Any) -> mx.array: ...

class QwenImage:
    vae: nn.Module
    transformer: _Transformer
    text_encoder: nn.Module
    tokenizers: dict[str, Any]
    def __init__(self, *, model_path: str, model_config: ModelConfig) -> None: ...
    @staticmethod
    def compute_guided_noise(
        noise: mx.array, noise_negative: mx.array, guidance: float
    ) -> mx.array: ...
