"""langchain-openai's ChatOpenAI: chat, stream, tools, structured output."""

import asyncio
from typing import Any, Literal

import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

ASK = HumanMessage("What is the weather in Paris?")


@tool
def get_weather(city: str) -> str:
    """Returns the weather in a city."""
    return f"sunny, 21 degrees in {city}"


class Answer(BaseModel):
    """Where it is how."""

    city: Literal["Paris", "Rome"]
    sunny: bool


@pytest.fixture
def model(base_url: str) -> ChatOpenAI:
    fields: Any = {"temperature": 0, "max_tokens": 60, "max_retries": 0}
    return ChatOpenAI(model="exo-demo", base_url=base_url, api_key="none", **fields)


def test_chat(model: ChatOpenAI) -> None:
    answer = model.invoke("Hello")
    assert answer.text
    assert answer.usage_metadata
    assert answer.usage_metadata["output_tokens"] > 0


def test_stream(model: ChatOpenAI) -> None:
    chunks = list(model.stream("Hello"))
    assert len(chunks) > 2
    assert "".join(chunk.text for chunk in chunks) == model.invoke("Hello").text


def test_tools(model: ChatOpenAI) -> None:
    first = model.bind_tools([get_weather], tool_choice="required").invoke([ASK])
    (call,) = first.tool_calls
    assert call["name"] == "get_weather"
    result = get_weather.invoke(call)
    assert isinstance(result, ToolMessage)
    second = model.bind_tools([get_weather]).invoke([ASK, first, result])
    assert second.text
    assert not second.tool_calls


def test_tool_calls_are_streamed(model: ChatOpenAI) -> None:
    whole: Any = None
    for chunk in model.bind_tools([get_weather], tool_choice="get_weather").stream([ASK]):
        whole = chunk if whole is None else whole + chunk
    (call,) = whole.tool_calls
    assert isinstance(call["args"]["city"], str)


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output(model: ChatOpenAI, method: Any) -> None:
    answer = model.with_structured_output(Answer, method=method).invoke([ASK])
    assert isinstance(answer, Answer)


async def _collect(model: ChatOpenAI) -> str:
    return "".join([chunk.text async for chunk in model.astream("Hello")])


def test_async(model: ChatOpenAI) -> None:
    assert asyncio.run(_collect(model)) == model.invoke("Hello").text
