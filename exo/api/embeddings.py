"""`/v1/embeddings`, and how any API has vectors made."""

import base64
import struct
from collections.abc import Sequence
from contextlib import aclosing

from aiohttp import web

from exo.api.access import Access
from exo.api.completions import check_tokens
from exo.api.context import Context, context_of
from exo.api.embedding_schema import (
    EmbeddingListView,
    EmbeddingRequest,
    EmbeddingUsage,
    EmbeddingView,
)
from exo.api.routes import Route, json_response, read_body
from exo.cluster.state import Instance
from exo.errors import EngineError
from exo.inference.ids import new_id
from exo.inference.messages import Embedded, Finished
from exo.inference.types import EmbedRequest, Stats
from exo.models.card import Task


async def create(request: web.Request) -> web.Response:
    context = context_of(request)
    body = await read_body(request, EmbeddingRequest)
    instance = await context.begin(body.model, Task.EMBEDDING)
    check_tokens(body.inputs, instance.card, "input")
    asked = EmbedRequest(request_id=new_id("embd"), inputs=body.inputs, dimensions=body.dimensions)
    vectors, stats = await embed(context, instance, asked)
    as_text = body.encoding_format == "base64"
    tokens = stats.prompt_tokens
    return json_response(
        EmbeddingListView(
            data=[
                EmbeddingView(
                    index=index,
                    embedding=base64.b64encode(vector).decode("ascii")
                    if as_text
                    else numbers(vector),
                )
                for index, vector in enumerate(vectors)
            ],
            model=instance.card.model_id,
            usage=EmbeddingUsage(prompt_tokens=tokens, total_tokens=tokens),
        )
    )


async def embed(
    context: Context, instance: Instance, asked: EmbedRequest
) -> tuple[Sequence[bytes], Stats]:
    """The vector of each input, as `Embedded` has it.

    Raises:
        ExoError: the request was refused, or failed.
    """
    vectors = [b""] * len(asked.inputs)
    outputs = context.embed(instance, asked)
    async with aclosing(outputs):
        async for output in outputs:
            if isinstance(output, Embedded):
                vectors[output.index] = output.vector
            elif isinstance(output, Finished):
                return vectors, output.stats
    raise EngineError("The runner ended the request without finishing it.")


def numbers(vector: bytes) -> list[float]:
    """A vector as JSON has it."""
    return list(struct.unpack(f"<{len(vector) // 4}f", vector))


_ERRORS = (400, 404, 429, 500, 503, 507)
ROUTES = [
    Route("POST", "/v1/embeddings", create, "Texts as vectors", EmbeddingListView, "embeddings",
          body=EmbeddingRequest, errors=_ERRORS, access=Access.INFERENCE),
]  # fmt: skip
