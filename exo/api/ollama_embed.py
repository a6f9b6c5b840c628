"""Ollama's `/api/embed`, and `/api/embeddings`, which was before it."""

from typing import Annotated, Any

from aiohttp import web
from pydantic import Field, model_validator

from exo.api.access import Access
from exo.api.chat_schema import Part, clash
from exo.api.completion_schema import Text
from exo.api.context import Context, context_of
from exo.api.embedding_schema import MAX_INPUTS
from exo.api.embeddings import embed, numbers
from exo.api.error_shapes import OllamaErrorView
from exo.api.ollama import keep_for
from exo.api.ollama_adapter import model_name
from exo.api.ollama_schema import Lasting
from exo.api.routes import Route, json_response, read_body
from exo.api.views import View
from exo.errors import ExoError, RequestError, renamed
from exo.inference.ids import new_id
from exo.inference.types import EmbedRequest, Stats
from exo.models.card import Task


class EmbedOptions(Part):
    """`num_ctx` is a context that the model must have."""

    num_ctx: int | None = Field(None, ge=1)


class OllamaEmbed(Lasting):
    """With `truncate`, what does not fit into the context is left out."""

    model: str = Field(min_length=1)
    input: Text | Annotated[list[Text], Field(max_length=MAX_INPUTS)]
    truncate: bool | None = None
    dimensions: int | None = Field(None, ge=1)
    options: EmbedOptions | None = None

    @model_validator(mode="after")
    def _asks(self) -> "OllamaEmbed":
        if not self.input:
            raise clash("input", "There is nothing to embed")
        return self


class OllamaEmbeddings(Lasting):
    model: str = Field(min_length=1)
    prompt: Text
    options: EmbedOptions | None = None


class EmbedView(View):
    """Durations in nanoseconds."""

    model: str
    embeddings: list[list[float]]
    total_duration: int
    load_duration: int = 0
    prompt_eval_count: int


class EmbeddingsView(View):
    embedding: list[float]


async def create(request: web.Request) -> web.Response:
    body = await read_body(request, OllamaEmbed)
    inputs = [body.input] if isinstance(body.input, str) else body.input
    wanted = {"dimensions": body.dimensions, "truncate": body.truncate is not False}
    vectors, stats = await _embed(context_of(request), body, inputs, wanted)
    return json_response(
        EmbedView(
            model=body.model,
            embeddings=vectors,
            total_duration=round(stats.total_time * 1e9),
            prompt_eval_count=stats.prompt_tokens,
        )
    )


async def create_one(request: web.Request) -> web.Response:
    body = await read_body(request, OllamaEmbeddings)
    try:
        [vector], _ = await _embed(context_of(request), body, [body.prompt], {"truncate": True})
    except ExoError as error:
        raise (renamed(error, "prompt") if error.param == "input" else error) from error
    return json_response(EmbeddingsView(embedding=vector))


async def _embed(
    context: Context,
    body: OllamaEmbed | OllamaEmbeddings,
    inputs: list[str],
    wanted: dict[str, Any],
) -> tuple[list[list[float]], Stats]:
    instance = await context.begin(model_name(body.model), Task.EMBEDDING)
    most = instance.placement.context_length
    if body.options and (body.options.num_ctx or 0) > most:
        raise RequestError(
            f"The context of {instance.card.model_id} is {most} tokens.", param="options.num_ctx"
        )
    asked = EmbedRequest(request_id=new_id("ollama"), inputs=[*inputs], **wanted)
    vectors, stats = await embed(context, instance, asked)
    await keep_for(context, instance, body.keep_seconds)
    return [numbers(vector) for vector in vectors], stats


_ERRORS = (400, 404, 429, 500, 503, 507)
ROUTES = [
    Route("POST", "/api/embed", create, "Texts as vectors (Ollama's way)", EmbedView, "ollama",
          body=OllamaEmbed, errors=_ERRORS, error=OllamaErrorView,
          access=Access.INFERENCE),
    Route("POST", "/api/embeddings", create_one, "A text as a vector (Ollama's older way)",
          EmbeddingsView, "ollama", body=OllamaEmbeddings, errors=_ERRORS, error=OllamaErrorView,
          access=Access.INFERENCE),
]  # fmt: skip
