"""Answers put together from what comes of a request, for APIs that send them whole."""

import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any, cast

from exo.cluster.requests import Output
from exo.errors import EngineError
from exo.inference.messages import Finished
from exo.inference.types import Delta, FinishReason, Stats, TokenLogprob, ToolCall


@dataclass
class MadeCall:
    """A call of a tool: its arguments are a JSON text."""

    name: str
    arguments: str = ""

    @property
    def fields(self) -> dict[str, Any]:
        """The arguments, read; none, where the answer was cut before they were complete."""
        try:
            found: Any = json.loads(self.arguments)
        except ValueError:
            return {}
        return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


@dataclass
class Collected:
    """One answer as far as it has come."""

    text: str = ""
    reasoning: str = ""
    calls: list[MadeCall] = field(default_factory=list[MadeCall])
    logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])
    finish_reason: FinishReason | None = None
    stop: str | None = None

    def add(self, delta: Delta) -> None:
        self.text += delta.text
        self.reasoning += delta.reasoning
        self.logprobs += delta.logprobs
        self.stop = delta.stop or self.stop
        self.finish_reason = delta.finish_reason or self.finish_reason
        for call in delta.calls:
            add_call(self.calls, call)


def add_call(calls: list[MadeCall], piece: ToolCall) -> None:
    """Take in a piece of a call, the first of which has its name."""
    if piece.name is not None:
        calls.append(MadeCall(piece.name))
    calls[piece.index].arguments += piece.arguments


async def collect(outputs: AsyncGenerator[Output], n: int) -> tuple[list[Collected], Stats]:
    """All `n` answers of a request, to their end.

    Raises:
        ExoError: the request failed.
    """
    answers = [Collected() for _ in range(n)]
    async for output in outputs:
        if isinstance(output, Delta):
            answers[output.index].add(output)
        elif isinstance(output, Finished):
            return answers, output.stats
    raise EngineError("The runner ended the answer without finishing it.")
