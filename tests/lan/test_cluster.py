"""Hosts where `exo start` was said and nothing else: one cluster, and one endpoint on each of
them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.daemon import DONE, Json, chat_body, content_of, error_of
from tests.e2e.endless import FIELDS, MODEL

from .cluster import Cluster, online, openai, runner_of
from .conftest import MakeLan
from .host import InsideTransport

pytestmark = pytest.mark.e2e

CHAT = "/v1/chat/completions"
QUESTION = "What is exo, and who made you?"


@pytest.fixture(scope="module")
def cluster(make_shared_lan: MakeLan, models: Path) -> Iterator[Cluster]:
    made = Cluster(make_shared_lan(4), models_dir=models)
    # The API of this one is open to the network, as that of no other.
    made.settings[3].update(host="0.0.0.0", insecure="true")
    made.start()
    yield made
    made.check_logs(allowed=["The runner", "without a key"])


@pytest.fixture
def one_slot(cluster: Cluster) -> Iterator[Json]:
    """An instance on host 1 that answers one request at a time, without end."""
    instance = cluster.create(cluster.hosts[0], cluster.hosts[1], MODEL, concurrency=1)
    yield instance
    cluster.hosts[2].daemon.delete(instance)


def test_all_become_one_cluster(cluster: Cluster) -> None:
    term = cluster.agree()
    state = cluster.equal_states()
    assert {node["name"] for node in state["nodes"]} == {"host0", "host1", "host2", "host3"}
    assert [node["node_id"] for node in state["nodes"] if node["role"] == "master"] == [
        term["master_id"]
    ]
    for host in cluster.hosts:
        assert host.daemon.get("/node_id") == {"node_id": term["master_id"]}
        members = host.daemon.get("/cluster")["members"]
        assert {member["peer_id"] for member in members} == online(host.state())
        assert {member["status"] for member in members} == {"alive"}
        assert f"/ip4/{host.ip}/tcp/52416/p2p/{host.node_id}" in str(host.state())


def test_each_host_serves_a_model_that_one_of_them_computes(cluster: Cluster) -> None:
    """The first request places it."""
    told: set[str] = set()
    for host in cluster.hosts:
        with openai(host) as client:
            asked: Json = {
                "model": "tiny",
                "messages": [{"role": "user", "content": "Hello"}],
                "max_tokens": 8,
                "temperature": 0,
            }
            whole = client.chat.completions.create(**asked)
            told.add(whole.choices[0].message.content or "")
            chunks = client.chat.completions.create(stream=True, **asked)
            told.add("".join(c.choices[0].delta.content or "" for c in chunks if c.choices))
    assert len(told) == 1
    assert all(told)
    (instance,) = cluster.equal_states()["instances"].values()
    cluster.hosts[0].daemon.delete(instance)


@pytest.mark.usefixtures("one_slot")
def test_a_client_that_leaves_frees_the_slot_on_the_other_host(cluster: Cluster) -> None:
    for host in (cluster.hosts[0], cluster.hosts[2]):
        with host.daemon.stream(MODEL, **FIELDS) as lines:
            assert next(lines)
            assert content_of(next(lines))
        answer = host.daemon.chat(MODEL, max_tokens=3, **FIELDS)
        assert answer["usage"]["completion_tokens"] == 3


@pytest.mark.usefixtures("one_slot")
def test_an_error_of_the_runner_comes_through(cluster: Cluster) -> None:
    # It takes the prompt's own length, which only the runner knows, to refuse this.
    bodies = [chat_body(MODEL, "Hello", max_tokens=2**20, stream=s) for s in (False, True)]
    errors = [
        error_of(host.daemon.http.post(CHAT, json=body), 400, "context_length_exceeded")
        for host in cluster.hosts
        for body in bodies
    ]
    assert errors == [errors[0]] * 8


def test_a_runner_that_dies_ends_the_answer_on_the_other_host(
    cluster: Cluster, one_slot: Json
) -> None:
    host = cluster.hosts[0]
    with host.daemon.stream(MODEL, **FIELDS) as lines:
        assert next(lines)
        cluster.hosts[1].run("kill", "-9", str(runner_of(host, one_slot)["pid"]))
        last = list(lines)[-1]
    assert last != DONE
    assert json.loads(last)["error"]["code"] == "runner_died"

    def again(state: Json) -> bool:
        (shard,) = state["instances"][one_slot["instance_id"]]["shards"]
        return shard["runner"]["restarts"] == 1 and shard["runner"]["status"] == "ready"

    host.wait(again)
    assert host.daemon.chat(MODEL, max_tokens=3, **FIELDS)["usage"]["completion_tokens"] == 3


def test_what_is_said_cannot_be_overheard(cluster: Cluster) -> None:
    """A chat through a host that does not compute crosses the network, and so does one with an API
    that is open to it: there it can be read, so the looking is worth something."""
    asked, computes, insecure = cluster.hosts[0], cluster.hosts[1], cluster.hosts[3]
    instance = cluster.create(asked, computes, "exo-demo")

    def words(text: str) -> set[bytes]:
        return {word.encode() for word in re.findall(r"\w{5,}", text)}

    with cluster.lan.capture() as capture:
        answer = asked.daemon.text("exo-demo", QUESTION, max_tokens=40, temperature=0)
        with asked.daemon.stream("exo-demo", QUESTION, max_tokens=40, temperature=0) as lines:
            assert "".join(map(content_of, lines)) == answer
    assert capture.dropped == 0
    assert words(answer)
    heard = b"\n".join(capture.frames())
    assert len(heard) > len(QUESTION) + len(answer)
    assert [word for word in words(QUESTION + answer) if word in heard] == []

    port = insecure.daemon.base_url.rsplit(":", 1)[-1]
    with (
        cluster.lan.capture() as plain,
        httpx.Client(transport=InsideTransport(asked.namespace), timeout=60) as client,
    ):
        body = chat_body("exo-demo", QUESTION, max_tokens=40, temperature=0)
        response = client.post(f"http://{insecure.ip}:{port}{CHAT}", json=body)
        assert response.json()["choices"][0]["message"]["content"] == answer
    assert plain.contains(QUESTION.encode())
    assert plain.contains(answer.encode())
    asked.daemon.delete(instance)
