"""Simon Willison's llm: as a command, and as a library."""

import json
from pathlib import Path
from typing import Any, Literal

import llm
import pytest
from click.testing import CliRunner
from llm.cli import cli
from pydantic import BaseModel

ASK = "What is the weather in Paris?"


class Answer(BaseModel):
    city: Literal["Paris", "Rome"]
    sunny: bool


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, base_url: str) -> Path:
    """With exo among the models, as llm's page on other models says."""
    folder = tmp_path_factory.mktemp("llm")
    model = {
        "model_id": "demo",
        "model_name": "exo-demo",
        "api_base": base_url,
        "supports_tools": True,
        "supports_schema": True,
    }
    (folder / "extra-openai-models.yaml").write_text(json.dumps([model]), "utf-8")
    return folder


@pytest.fixture
def model(home: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("LLM_USER_PATH", str(home))
    return llm.get_model("demo")


@pytest.mark.usefixtures("model")
def test_the_command() -> None:
    """In this process: another one would import everything once more."""
    done = CliRunner().invoke(cli, ["-m", "demo", "Hello", "-o", "max_tokens", "20"])
    assert done.exit_code == 0, done.output
    assert done.output.strip()


def test_chat_and_stream(model: Any) -> None:
    whole = model.prompt("Hello", stream=False, temperature=0, max_tokens=30)
    pieces = list(model.prompt("Hello", temperature=0, max_tokens=30))
    assert len(pieces) > 1
    assert "".join(pieces) == whole.text()
    assert whole.usage().output > 0


def test_a_conversation(model: Any) -> None:
    talk = model.conversation()
    assert talk.prompt("Hello", temperature=0, max_tokens=30).text()
    assert talk.prompt("And now?", temperature=0, max_tokens=30).text()


def test_tools(model: Any) -> None:
    asked: list[str] = []

    def get_weather(city: str) -> str:
        """Returns the weather in a city."""
        asked.append(city)
        return "sunny, 21 degrees"

    chain = model.chain(ASK, tools=[get_weather], options={"temperature": 0, "max_tokens": 60})
    assert chain.text()
    assert asked == ["Paris"]


def test_a_schema(model: Any) -> None:
    answer = model.prompt(ASK, schema=Answer, temperature=0, max_tokens=60)
    assert Answer.model_validate_json(answer.text())
