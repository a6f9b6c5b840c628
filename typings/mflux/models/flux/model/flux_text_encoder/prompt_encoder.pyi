from typing import Any

import mlx.core as mx
from mlx import nn

class PromptEncoder:
    @staticmethod
    def encode_prompt(
        *,
        prompt: str,
        prompt_cache: dict[str, tuple[mx.array, mx.array]],
        t5_tokenizer: Any,
        clip_tokenizer: Any,
        t5_text_encoder: nn.Module,
        clip_text_encoder: nn.Module,
    ) -> tuple[mx.array, mx.array]: ...
