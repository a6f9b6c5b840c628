"""instructor: answers as pydantic models, by tools and by schema."""

from typing import Any, Literal

import instructor
import pytest
from openai import OpenAI
from pydantic import BaseModel

ASK: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
FIELDS: dict[str, Any] = {"model": "exo-demo", "temperature": 0, "max_tokens": 80}


class Answer(BaseModel):
    """Where it is how."""

    city: Literal["Paris", "Rome"]
    sunny: bool


@pytest.fixture(
    params=[instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA],
    ids=lambda mode: mode.name,
)
def client(base_url: str, request: pytest.FixtureRequest) -> Any:
    return instructor.from_openai(OpenAI(base_url=base_url, api_key="none"), mode=request.param)


def test_an_answer_is_a_model(client: Any) -> None:
    answer, raw = client.chat.completions.create_with_completion(
        response_model=Answer, messages=ASK, max_retries=0, **FIELDS
    )
    assert isinstance(answer, Answer)
    assert raw.usage.completion_tokens > 0


def test_it_grows_while_it_is_streamed(client: Any) -> None:
    parts = list(
        client.chat.completions.create_partial(response_model=Answer, messages=ASK, **FIELDS)
    )
    assert parts[-1].city in {"Paris", "Rome"}
    assert isinstance(parts[-1].sunny, bool)
