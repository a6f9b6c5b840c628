from typing import Any

import mlx.core as mx
from mflux.models.common.config.model_config import ModelConfig
from mlx import nn

class _Transformer(nn.Module):
    layers: list[nn.Module]
    noise_refiner: list[nn.Module]
    def __call__(self, **inputs: Any) -> mx.array: ...

class ZImage:
    vae: nn.Module
    transformer: _Transformer
    text_encoder: nn.Module
    tokenizers: dict[str, Any]
    def __init__(self, *, model_path: str, model_config: ModelConfig) -> None: ...
