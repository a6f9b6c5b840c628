"""OpenAI's request for embeddings (https://platform.openai.com/docs/api-reference/embeddings)."""

from typing import Annotated, Literal

from pydantic import Field

from exo.api.chat_schema import Label, Part
from exo.api.completion_schema import AS_ONE, Text, Tokens, each_input
from exo.api.views import View

MAX_INPUTS = 2048


class EmbeddingRequest(Part):
    """The body. `encoding_format` base64 is of numbers of 32 bits, the lowest byte first."""

    model: str = Field(min_length=1)
    input: Annotated[
        Text
        | Annotated[list[Text], Field(min_length=1, max_length=MAX_INPUTS)]
        | Tokens
        | Annotated[list[Tokens], Field(min_length=1, max_length=MAX_INPUTS)],
        AS_ONE,
    ]
    dimensions: int | None = Field(None, ge=1)
    encoding_format: Literal["float", "base64"] = "float"
    user: Label | None = None

    @property
    def inputs(self) -> list[str | list[int]]:
        """One or several, each text or tokens."""
        return each_input(self.input)


class EmbeddingView(View):
    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(View):
    prompt_tokens: int
    total_tokens: int


class EmbeddingListView(View):
    object: Literal["list"] = "list"
    data: list[EmbeddingView]
    model: str
    usage: EmbeddingUsage
