from typing import Any

class ModelConfig:
    max_sequence_length: int | None
    supports_guidance: bool | None
    transformer_overrides: dict[str, Any]
    text_encoder_overrides: dict[str, Any]

AVAILABLE_MODELS: dict[str, ModelConfig]
