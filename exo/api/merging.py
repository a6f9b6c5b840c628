"""Several requests as one."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing

from exo.cluster.requests import Output
from exo.errors import ExoError
from exo.inference.messages import Finished

Numbered = tuple[int, Output]


async def merged(requests: Sequence[AsyncGenerator[Output]]) -> AsyncGenerator[Numbered]:
    """What comes of each, with its number, as it comes. First what comes first of each, in order:
    that it is accepted. Closed early, or when one fails, all are closed.

    Raises:
        ExoError: one of them failed.
    """
    queue: asyncio.Queue[Numbered | ExoError] = asyncio.Queue()

    async def pump(number: int, outputs: AsyncGenerator[Output]) -> None:
        try:
            async for output in outputs:
                queue.put_nowait((number, output))
        except ExoError as error:
            queue.put_nowait(error)

    async with AsyncExitStack() as stack:
        for outputs in requests:
            await stack.enter_async_context(aclosing(outputs))
        for number, outputs in enumerate(requests):
            yield number, await anext(outputs)
        tasks = [asyncio.create_task(pump(n, outputs)) for n, outputs in enumerate(requests)]
        try:
            left = len(tasks)
            while left:
                item = await queue.get()
                if isinstance(item, ExoError):
                    raise item
                left -= isinstance(item[1], Finished)
                yield item
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
