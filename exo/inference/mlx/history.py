"""The tokens that penalties look at."""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

from collections.abc import Sequence

import mlx.core as mx


class History:
    """The tokens of one sequence so far, which may be taken back from the end."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens = mx.array(list(tokens), dtype=mx.int32)

    def add(self, tokens: mx.array) -> mx.array:
        """All tokens (N,), with these (M,) at the end."""
        self._tokens = mx.concatenate([self._tokens, tokens.astype(mx.int32)])
        return self._tokens

    def cut(self, count: int) -> None:
        """Take back the last `count` tokens."""
        self._tokens = self._tokens[: self._tokens.size - count]
