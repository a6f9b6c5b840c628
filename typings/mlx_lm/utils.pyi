from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlx import nn
from mlx_lm.tokenizer_utils import TokenizerWrapper

def load_model(
    model_path: Path, lazy: bool = ..., strict: bool = ..., *, trust_remote_code: bool = ...
) -> tuple[nn.Module, dict[str, Any]]: ...
def load_tokenizer(
    model_path: Path,
    tokenizer_config_extra: dict[str, Any] | None = ...,
    eos_token_ids: int | Sequence[int] | None = ...,
) -> TokenizerWrapper: ...
