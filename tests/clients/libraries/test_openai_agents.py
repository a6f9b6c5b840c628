"""openai-agents: a loop of tools, an answer of a form, events of a stream."""

import asyncio
from typing import Any, Literal

import pytest
from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import BaseModel

ASK = "What is the weather in Paris?"

set_tracing_disabled(True)


class Answer(BaseModel):
    city: Literal["Paris", "Rome"]
    sunny: bool


@pytest.fixture
def asked() -> list[str]:
    return []


@pytest.fixture
def agent(base_url: str, asked: list[str]) -> Any:
    @function_tool
    def get_weather(city: str) -> str:
        """Returns the weather in a city."""
        asked.append(city)
        return "sunny, 21 degrees"

    def make(**fields: Any) -> Agent[Any]:
        # A client of its own for each loop: its connections belong to the loop.
        client = AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0)
        model = OpenAIChatCompletionsModel(model="exo-demo", openai_client=client)
        settings = ModelSettings(temperature=0, max_tokens=60, **fields.pop("settings", {}))
        return Agent(
            name="exo", model=model, model_settings=settings, tools=[get_weather], **fields
        )

    return make


def test_a_loop_of_tools(agent: Any, asked: list[str]) -> None:
    result = Runner.run_sync(agent(settings={"tool_choice": "required"}), ASK, max_turns=4)
    assert len(asked) == 1
    kinds = [item.type for item in result.new_items]
    assert kinds == ["tool_call_item", "tool_call_output_item", "message_output_item"]
    assert result.final_output


def test_a_loop_that_is_streamed(agent: Any, asked: list[str]) -> None:
    async def run() -> Any:
        streamed = Runner.run_streamed(
            agent(settings={"tool_choice": "required"}), ASK, max_turns=4
        )
        events = [event async for event in streamed.stream_events()]
        return streamed.final_output, {event.type for event in events}

    output, kinds = asyncio.run(run())
    assert output
    assert len(asked) == 1
    assert {"raw_response_event", "run_item_stream_event"} <= kinds


def test_an_answer_of_a_form(agent: Any) -> None:
    result = Runner.run_sync(agent(output_type=Answer, settings={"tool_choice": "none"}), ASK)
    assert isinstance(result.final_output, Answer)
