from typing import Any

import mlx.core as mx
from mlx import nn

class PromptEncoder:
    @staticmethod
    def encode_prompt(*, prompt: str, tokenizer: Any, text_encoder: nn.Module) -> mx.array: ...
