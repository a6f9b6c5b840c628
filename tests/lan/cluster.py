"""The hosts of a network as one cluster, and what a test asks of it."""

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from openai import OpenAI
from openai.types.chat import ChatCompletionUserMessageParam

from tests.e2e.daemon import Json

from .host import Host, InsideTransport
from .lan import Lan

# What `exo start` does when nobody says anything; the tests' daemons are alone otherwise.
AS_IT_COMES: Json = {"p2p_host": "", "p2p_port": 52416, "discovery": "true"}
# On two cores shared by four daemons; nothing of it is waited for in vain.
PATIENCE = 60.0

# What one node measures or sees of another, and two nodes need not agree on.
_OWN_VIEW = ("status", "since", "memory", "latency", "links")


def pids(cluster: "Cluster", instance: Json) -> list[int]:
    """The runner of each rank."""
    shards = cluster.hosts[0].state()["instances"][instance["instance_id"]]["shards"]
    return [shard["runner"]["pid"] for shard in shards]


class Cluster:
    """The hosts of `lan`, each with the settings that it is started with from life to life."""

    def __init__(self, lan: Lan, **settings: object) -> None:
        self.lan = lan
        self.settings: list[Json] = [{**AS_IT_COMES, **settings} for _ in lan.hosts]

    @property
    def hosts(self) -> list[Host]:
        """Those whose daemon runs."""
        return [host for host in self.lan.hosts if host.runs]

    def start(self, *numbers: int, flags: Sequence[str] = ()) -> list[Host]:
        """`exo start` on these hosts (all, if none is named) at the same time; when all are
        ready."""
        hosts = [self.lan.hosts[n] for n in numbers] if numbers else self.lan.hosts

        for host in hosts:
            host.furnish()

        def start(host: Host) -> None:
            host.start(*flags, **self.settings[host.number])

        with ThreadPoolExecutor(len(hosts)) as threads:
            list(threads.map(start, hosts))
        return hosts

    def agree(self, *hosts: Host) -> Json:
        """Wait until these hosts (all that run, if none is named) list each other and nobody else
        as being here, under one master and in one term, which is returned."""
        among = hosts or tuple(self.hosts)
        ids = {host.node_id for host in among}
        least = 0
        while True:
            terms = [term_among(host, ids, least) for host in among]
            if all(term == terms[0] for term in terms):
                return terms[0]
            # The lower ones are about to follow.
            least = max(term["number"] for term in terms)

    def master(self, *hosts: Host) -> Host:
        """The master of these hosts (all that run), once they agree on one."""
        among = hosts or tuple(self.hosts)
        master_id = self.agree(*among)["master_id"]
        return next(host for host in among if host.node_id == master_id)

    def roles(self) -> tuple[Host, list[Host]]:
        """The master and the others."""
        master = self.master()
        return master, [host for host in self.hosts if host is not master]

    def equal_states(self, *hosts: Host) -> Json:
        """Wait until these hosts (all that run) have the same state, which is returned: what the
        log says is the same on two hosts that are as far in it."""
        among = hosts or tuple(self.hosts)
        least = 0
        while True:
            states = [state_since(host, least) for host in among]
            most = max(state["index"] for state in states)
            if all(state["index"] == most for state in states):
                told = [without_measurements(state) for state in states]
                assert all(one == told[0] for one in told), json.dumps(told, indent=1)
                return told[0]
            least = most

    # Instances.

    def create(self, asked: Host, where: Host, model: str = "tiny", **wanted: object) -> Json:
        """Have `asked` bring about an instance on `where`; return it when all know it is ready."""
        instance = command(asked, placement(asked, where, model, **wanted))
        self.ready(instance)
        return instance

    def ready(self, instance: Json, *hosts: Host) -> None:
        """Wait until these hosts (all that run) know the instance to be ready."""
        for host in hosts or self.hosts:
            host.wait(lambda state: status_of(state, instance) == "ready", PATIENCE)

    # Logs.

    def check_logs(self, allowed: Iterable[str] = ()) -> None:
        """No daemon has logged a traceback, or a warning without one of these texts in it."""
        for host in self.lan.hosts:
            if host.home.exists():
                found = troubles(host, tuple(allowed))
                assert not found, "\n".join(found)


def term_among(host: Host, ids: set[str], least: int) -> Json:
    """The term of a host's state that lists just those nodes as being here."""

    def agreed(state: Json) -> bool:
        term = state["term"]
        return (
            term is not None
            and term["number"] >= least
            and online(state) == ids
            and term["master_id"] in ids
        )

    return host.wait(agreed, PATIENCE)["term"]


def state_since(host: Host, index: int) -> Json:
    return host.wait(lambda state: state["index"] >= index, PATIENCE)


def online(state: Json) -> set[str]:
    return {
        n["node_id"] for n in state["topology"]["nodes"] if n["status"] in ("online", "draining")
    }


def node_in(state: Json, node_id: str) -> Json:
    return next(node for node in state["topology"]["nodes"] if node["node_id"] == node_id)


def status_of(state: Json, instance: Json) -> str | None:
    found = state["instances"].get(instance["instance_id"])
    return found and found["status"]


def runner_in(state: Json, instance: Json) -> Json:
    """The only runner of an instance."""
    (shard,) = state["instances"][instance["instance_id"]]["shards"]
    return shard["runner"]


def runner_of(host: Host, instance: Json) -> Json:
    """The only runner of an instance, as a host knows it."""
    return runner_in(host.state(), instance)


def placement(asked: Host, where: Host, model: str, **wanted: object) -> Json:
    """The body of a command to serve the model on that host alone."""
    found = asked.daemon.get("/instance/placement", model_id=model, **wanted)
    (shard,) = found["shards"]
    placed = {**found, "shards": [{**shard, "node_id": where.node_id}]}
    return {"instance": {"model_id": model, "placement": placed}}


def command(asked: Host, body: Json, key: str = "") -> Json:
    """Have a host bring about an instance; what it answers."""
    headers = {"Idempotency-Key": key} if key else {}
    response = asked.daemon.http.post("/instance", json=body, headers=headers)
    assert response.status_code == 200, response.text
    return response.json()


def without_measurements(state: Json) -> Json:
    """What every node must say alike."""
    nodes = [
        {key: value for key, value in node.items() if key not in _OWN_VIEW}
        for node in state["topology"]["nodes"]
    ]
    return {
        "master_id": state["master_id"],
        "term": state["term"],
        "index": state["index"],
        "nodes": sorted(nodes, key=lambda node: node["node_id"]),
        "instances": {
            key: {name: value for name, value in instance.items() if name != "ring"}
            for key, instance in state["instances"].items()
        },
        "name": state["cluster"]["name"],
        "locked": state["cluster"]["locked"],
    }


def troubles(host: Host, allowed: tuple[str, ...]) -> list[str]:
    """Lines of a host's log that nobody expects."""
    folder = host.home / "state" / "logs"
    lines = [line for path in folder.glob("exo.log*") for line in path.read_text().splitlines()]
    output = Path(f"{host.home}.out")
    if output.exists():
        lines += output.read_text("utf-8").splitlines()
    return [
        line for line in lines if is_trouble(line) and not any(text in line for text in allowed)
    ]


def is_trouble(line: str) -> bool:
    return "Traceback" in line or any(f" {level} " in line for level in ("WARNING", "ERROR"))


@contextmanager
def in_background(work: Callable[[], Any]) -> Iterator[Callable[[], Any]]:
    """Have a thread do some work; calling what this gives waits for it and returns its result."""
    with ThreadPoolExecutor(1) as threads:
        future = threads.submit(work)
        yield future.result


def answers(host: Host, model: str, retries: int = 0) -> None:
    """A short chat is answered, within so many more tries of a client that honours Retry-After:
    right after a network has healed, two hosts may not be linked yet that hear of each other."""
    with openai(host, retries) as client:
        message: ChatCompletionUserMessageParam = {"role": "user", "content": "Hello"}
        answer = client.chat.completions.create(model=model, messages=[message], max_tokens=4)
    assert answer.usage
    assert answer.usage.completion_tokens > 0


def openai(host: Host, retries: int = 0) -> OpenAI:
    """The official client, on that host."""
    inside = httpx.Client(transport=InsideTransport(host.namespace), timeout=PATIENCE)
    base_url = f"{host.daemon.base_url}/v1"
    return OpenAI(base_url=base_url, api_key="none", http_client=inside, max_retries=retries)


def eventually(look: Callable[[], bool]) -> None:
    """Wait for what no daemon tells of: it is asked again and again."""
    pause = threading.Event()
    deadline = time.monotonic() + PATIENCE
    while not look():
        assert time.monotonic() < deadline, "it did not come to be"
        pause.wait(0.05)
