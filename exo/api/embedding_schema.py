"""OpenAI's request for embeddings (https://platform.openai.com/docs/api-reference/embeddings)."""

from typing import Annotated, Literal

from pydantic import Field

from exo.api.chat_schema import Label, Part
from exo.api.completion_schema import Text, Tokens
from exo.api.views import View

MAX_INPUTS = 2048


class EmbeddingRequest(Part):
    """The body. `encoding_format` base64 is of numbers of 32 bits, the lowest byte first."""

    model: str = Field(min_length=1)
    input: (
        Text
        | Annotated[list[Text], Field(min_length=1, max_length=MAX_INPUTS)]
        | Tokens
        | Annotated[list[Tokens], Field(min_length=1, max_length=MAX_INPUTS)]
    )
    dimensions: int | None = Field(None, ge=1)
    encoding_format: Literal["float", "base64"] = "float"
    user: Label | None = None

    @property
    def inputs(self) -> list[str | list[int]]:
        """One or several, each text or tokens."""
        if isinstance(self.input, str):
            return [self.input]
        tokens = [each for each in self.input if isinstance(each, int)]
        return [tokens] if tokens else [each for each in self.input if not isinstance(each, int)]


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
