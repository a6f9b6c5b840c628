from typing import Any

import mlx.core as mx
from mlx import nn

class Flux2PromptEncoder:
    @staticmethod
    def encode_prompt(
        *,
        prompt: str,
        tokenizer: Any,
        text_encoder: nn.Module | None,
        max_sequence_length: int,
        text_encoder_out_layers: tuple[int, ...],
    ) -> tuple[mx.array, mx.array]: ...
