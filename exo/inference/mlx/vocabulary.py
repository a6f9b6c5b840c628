"""A model's tokens as grammars see them."""

import copy
from pathlib import Path
from typing import Any

from llguidance import LLTokenizer

from exo.errors import RequestError
from exo.inference.grammars.compiler import Grammars, Vocabulary
from exo.inference.mlx.adapter import TokenizerWrapper, open_tokenizer


def open_grammars(path: Path, config: dict[str, Any]) -> Grammars:
    """Grammars for the tokens of a model. They are made ready in the background, which takes a
    second for a large vocabulary."""
    grammars = Grammars(lambda: _vocabulary(open_tokenizer(path, config)))
    grammars.prepare()
    return grammars


def _vocabulary(tokenizer: TokenizerWrapper) -> Vocabulary:
    """Raises:
    RequestError: this vocabulary is of a kind that cannot be constrained.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    ends = frozenset(tokenizer.eos_token_ids)
    if backend is None or not ends:
        raise RequestError("This model's vocabulary cannot be held to a grammar.")
    plain = copy.copy(backend)
    plain.no_padding()
    plain.no_truncation()
    try:
        found = LLTokenizer(plain.to_str(), eos_token=sorted(ends))
    except ValueError as error:
        raise RequestError(
            "This model's vocabulary cannot be held to a grammar.", hint=f"{error}."
        ) from error
    names = {
        token: number
        for token, number in tokenizer.get_vocab().items()
        if found.is_special_token(number)
    }
    return Vocabulary(found, ends, names)
