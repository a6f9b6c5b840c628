from typing import Any

import mlx.core as mx

def create_causal_mask(
    N: int, offset: int = ..., *, left_padding: mx.array | None = ..., **kwargs: Any
) -> mx.array: ...
