from typing import Any

import mlx.core as mx
from mlx import nn

class QwenPromptEncoder:
    @staticmethod
    def encode_prompt(
        *,
        prompt: str,
        negative_prompt: str,
        prompt_cache: dict[str, Any],
        qwen_tokenizer: Any,
        qwen_text_encoder: nn.Module,
    ) -> tuple[mx.array, mx.array, mx.array, mx.array]: ...
