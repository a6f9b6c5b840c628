from typing import Any, ClassVar

import mlx.core as mx

class ModelConfig:
    precision: ClassVar[mx.Dtype]
    max_sequence_length: int | None
    supports_guidance: bool | None
    transformer_overrides: dict[str, Any]
    text_encoder_overrides: dict[str, Any]

AVAILABLE_MODELS: dict[str, ModelConfig]
