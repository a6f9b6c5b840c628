"""Requests that only want to know what a prompt is."""

from contextlib import aclosing

from exo.api.context import Context
from exo.cluster.state import Instance
from exo.errors import EngineError
from exo.inference.messages import Accepted
from exo.inference.types import GenerateRequest


async def dry(context: Context, instance: Instance, asked: GenerateRequest) -> Accepted:
    """What a request's prompt is, as tokens and text.

    Raises:
        ExoError: the request was refused, or failed.
    """
    outputs = context.generate(instance, asked)
    async with aclosing(outputs):
        async for output in outputs:
            if isinstance(output, Accepted):
                return output
    raise EngineError("The runner ended the request without an answer.")
