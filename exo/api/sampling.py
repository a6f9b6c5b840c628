"""How a client wants tokens to be drawn, as the engine is asked for it: pure."""

import secrets
from collections.abc import Mapping, Sequence
from typing import Protocol

from exo.errors import RequestError
from exo.inference.types import Sampling
from exo.models.card import ModelCard


class Asked(Protocol):
    """The fields that all kinds of completions share."""

    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    repetition_penalty: float | None
    presence_penalty: float | None
    frequency_penalty: float | None
    seed: int | None
    logit_bias: dict[str, float] | None


def sampling_of(asked: Asked, card: ModelCard) -> Sampling:
    """What the client leaves out is the model's default, then OpenAI's.

    Raises:
        RequestError: a bias is for no token of the model.
    """
    given = {
        "temperature": asked.temperature,
        "top_p": asked.top_p,
        "top_k": asked.top_k,
        "min_p": asked.min_p,
        "repetition_penalty": asked.repetition_penalty,
        "presence_penalty": asked.presence_penalty,
        "frequency_penalty": asked.frequency_penalty,
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    seed = secrets.randbits(63) if asked.seed is None else asked.seed
    bias = _logit_bias(asked.logit_bias or {}, card)
    return Sampling.model_validate({**card.sampling, **chosen, "seed": seed, "logit_bias": bias})


def _logit_bias(asked: Mapping[str, float], card: ModelCard) -> dict[int, float]:
    bias: dict[int, float] = {}
    for key, value in asked.items():
        token = int(key) if key.isascii() and key.isdigit() and len(key) < 10 else -1
        if not 0 <= token < card.vocab_size:
            raise RequestError(
                f"'{key}' in logit_bias is no token of {card.model_id}: those are the numbers from "
                f"0 to {card.vocab_size - 1}.",
                param="logit_bias",
            )
        bias[token] = value
    return bias


def stops_of(asked: str | Sequence[str] | None) -> list[str]:
    """Raises:
    RequestError: one is empty.
    """
    stops = [asked] if isinstance(asked, str) else list(asked or ())
    if not all(stops):
        raise RequestError("A stop string must not be empty.", param="stop")
    return stops
