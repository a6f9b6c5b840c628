"""`exo bench`: prompts of the wanted length, and what is made of the answers."""

from .conftest import Exo
from .fake_api import FakeApi, instance

WORDS = ["bench", "exo-demo", "--prompt-tokens", "100", "--max-tokens", "16"]


def test_prompts_have_the_length_asked_for(exo: Exo, api: FakeApi) -> None:
    api.instances["i1"] = instance("i1")

    result = exo(*WORDS, "--repeat", "2", "--json").json()

    assert (result["model"], result["instance_id"]) == ("exo-demo", "i1")
    assert result["median"]["prompt_tokens"] == 100
    assert [len(run["streams"]) for run in result["runs"]] == [1, 1]
    prompts = [chat["messages"][0]["content"] for chat in api.chats]
    assert len(set(prompts)) == len(prompts) == 4


def test_the_table(exo: Exo, api: FakeApi) -> None:
    api.instances["i1"] = instance("i1")

    result = exo(*WORDS, "--repeat", "2")

    head, *rows = (line.split("  ") for line in result.out.splitlines())
    assert [cell.strip() for cell in head if cell] == [
        "RUN",
        "FIRST TOKEN",
        "PROMPT",
        "SPEED",
        "ANSWER",
        "SPEED",
        "ALL STREAMS",
        "MEMORY",
    ]
    assert [row[0] for row in rows] == ["1", "2", "median"]
    cells = [cell.strip() for cell in rows[2] if cell]
    assert cells[:6] == ["median", "123 ms", "100 tok", "1000.0 tok/s", "16 tok", "50.0 tok/s"]
    assert cells[-1] == "2.0 GiB"
    assert "Measuring, 2 of 2.\n" in result.err


def test_several_streams_are_added_up(exo: Exo, api: FakeApi) -> None:
    api.instances["i1"] = instance("i1")

    [run] = exo(*WORDS, "--streams", "3", "--repeat", "1", "--json").json()["runs"]

    assert len(run["streams"]) == 3
    assert abs(run["total_tps"] * run["seconds"] - 48) < 1e-6
