"""`exo bench`: prompts of the wanted length, and what is made of the answers."""

from typing import Any

from .conftest import Exo
from .fake_api import RING, FakeApi, instance

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


def over_two(instance_id: str) -> dict[str, Any]:
    made = instance(instance_id)
    [shard] = made["shards"]
    return {**made, "shards": [shard, {**shard, "rank": 1}], "ring": RING}


def test_of_a_model_over_several_nodes_it_says_what_each_rank_takes(exo: Exo, api: FakeApi) -> None:
    api.instances["i1"] = over_two("i1")

    result = exo(*WORDS, "--repeat", "1", "--nodes", "2")

    assert result.out.endswith(
        "RANK  DECODE STEP  BUSY  BUBBLES\n"
        "0     2.10 ms      90%   10%\n"
        "1     1.90 ms      75%   25%\n"
        "A hop takes 0.30 ms. 3 streams in 2 micro-batches, 1 waiting.\n"
    )
    assert exo(*WORDS, "--repeat", "1", "--json").json()["ring"] == RING


def test_of_a_model_split_by_tensors_it_says_what_all_ranks_take(exo: Exo, api: FakeApi) -> None:
    ring = {**RING, "seconds": [0.0021], "busy": [0.9]}
    api.instances["i1"] = {**over_two("i1"), "ring": ring}

    result = exo(*WORDS, "--repeat", "1", "--nodes", "2")

    assert result.out.endswith(
        "A decode step takes 2.10 ms; the nodes are 90% busy. 3 streams in 2 micro-batches, 1 "
        "waiting.\n"
    )


def test_another_number_of_nodes_is_not_measured_by_mistake(exo: Exo, api: FakeApi) -> None:
    api.instances["i1"] = over_two("i1")

    result = exo(*WORDS, "--nodes", "1")

    assert result.code != 0
    assert "runs over 2 nodes" in result.err
    assert "exo instance delete i1" in result.err
