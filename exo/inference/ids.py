"""Ids that are unique without asking anyone."""

import secrets


def new_id(prefix: str) -> str:
    """`prefix-` and 96 random bits in hex: `chatcmpl-…` for requests, as OpenAI has them."""
    return f"{prefix}-{secrets.token_hex(12)}"
