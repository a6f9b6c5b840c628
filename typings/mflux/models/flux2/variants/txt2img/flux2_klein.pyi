from typing import Any

import mlx.core as mx
from mflux.models.common.config.model_config import ModelConfig
from mlx import nn

class _Transformer(nn.Module):
    transformer_blocks: list[nn.Module]
    single_transformer_blocks: list[nn.Module]
    def __call__(self, **inputs: Any) -> mx.array: ...

class _VAE(nn.Module):
    def decode_packed_latents(self, packed_latents: mx.array) -> mx.array: ...

class Flux2Klein:
    vae: _VAE
    transformer: _Transformer
    text_encoder: nn.Module | None
    tokenizers: dict[str, Any]
    def __init__(self, *, model_path: str, model_config: ModelConfig) -> None: ...
