"""Answers put together from what comes of a request, for APIs that send them whole."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from exo.cluster.requests import Output
from exo.errors import EngineError
from exo.inference.messages import Finished
from exo.inference.types import Delta, FinishReason, Stats, TokenLogprob


@dataclass
class MadeCall:
    """A call of a tool: its arguments are a JSON text."""

    name: str
    arguments: str = ""


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
            if call.name is not None:
                self.calls.append(MadeCall(call.name))
            self.calls[call.index].arguments += call.arguments


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
