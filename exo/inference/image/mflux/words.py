"""Prompts that a model would not read to their end."""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

from typing import Any, cast

import mlx.core as mx

from exo.errors import RequestError


def check_length(
    tokenizer: Any, text: str, *, length: int | None = None, param: str = "prompt"
) -> None:
    """See that a prompt fits what the model reads: mflux's tokenizers cut it without a word.

    `length` is how many tokens that are, with those of the template; None is the tokenizer's own.

    Raises:
        RequestError: it does not.
    """
    most: int = length or tokenizer.max_length
    mask: mx.array = tokenizer.tokenize(text, max_length=most).attention_mask
    if cast("int", mx.sum(mask).item()) >= most:
        raise RequestError(
            f"The {param.replace('_', ' ')} is too long: this model reads fewer than {most} "
            "tokens, with its own around them.",
            param=param,
        )
