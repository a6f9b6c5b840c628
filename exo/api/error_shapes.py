"""The shape of an error, by whose API was asked: pure."""

from typing import Any, Literal

from exo.api.views import ErrorView, View
from exo.errors import ExoError

ANTHROPIC = "/v1/messages"
OLLAMA = "/api/"
_TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    413: "request_too_large",
    503: "overloaded_error",
    504: "timeout_error",
}


class AnthropicErrorView(ErrorView):
    """Anthropic's error object, with what OpenAI's has beside it."""

    type: Literal["error"]


def anthropic_error(error: ExoError) -> dict[str, Any]:
    """An error as Anthropic has it, with what OpenAI has in it as well."""
    found = error.to_json()["error"]
    kind = _TYPES.get(error.status, found["type"] if error.status < 500 else "api_error")
    return {"type": "error", "error": {**found, "type": kind}}


class OllamaErrorView(View):
    """Ollama's error object."""

    error: str


def ollama_error(error: ExoError) -> dict[str, Any]:
    """An error as Ollama has it, with the field that it is about."""
    where = f" ({error.param})" if error.param else ""
    return {"error": f"{error}{where}"}


def error_json(error: ExoError, path: str) -> dict[str, Any]:
    """The body that tells of an error at this path."""
    if path.startswith(OLLAMA):
        return ollama_error(error)
    return anthropic_error(error) if path.startswith(ANTHROPIC) else error.to_json()
