"""Faults of every kind, one after the other, under a steady trickle of chats: at the end it is the
cluster that it was, and no daemon has more of anything than at the beginning.

`EXO_SOAK_FAULTS` is how many faults there are (12: one of each kind), `EXO_SOAK_SEED` their order
(1).
"""

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, repeat
from pathlib import Path
from random import Random

import psutil
import pytest
from openai import APIConnectionError, APIError, APIStatusError

from tests.e2e.daemon import Json
from tests.e2e.holding import Holding, probed_path

from .cluster import Cluster, answers, eventually, openai, runner_in, runner_of
from .conftest import MakeLan
from .host import Host

FAULTS = int(os.environ.get("EXO_SOAK_FAULTS", "12"))
SEED = int(os.environ.get("EXO_SOAK_SEED", "1"))

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120 + 15 * FAULTS)]

# Daemons on these hosts live from the beginning to the end; those on the others are also killed.
IMMORTAL = (0, 1)
# Seconds between two chats of one host, when it has its answer.
PAUSE = 0.3
# What a client may be told while something is broken.
HONEST = {"unavailable", "runner_died", "queue_full"}

# What the daemons are right to warn of here.
EXPECTED = (
    "The master did not carry out a command",
    "is on this node only so far",
    "The runner",
    "There is no network to find other nodes on",
)


class Client(threading.Thread):
    """Asks one host, again and again, and takes note of what comes."""

    def __init__(self, host: Host, stop: threading.Event) -> None:
        super().__init__(name=f"client of host{host.number}")
        self._host = host
        self._stop_asked = stop
        self.outcomes: Counter[str] = Counter()
        self.texts: set[str] = set()

    def run(self) -> None:
        while not self._stop_asked.wait(PAUSE):
            self.outcomes[self._ask()] += 1

    def _ask(self) -> str:
        with openai(self._host) as client:
            try:
                answer = client.chat.completions.create(
                    model="tiny",
                    messages=[{"role": "user", "content": "Hello"}],
                    max_tokens=6,
                    temperature=0,
                )
            except APIConnectionError:
                return "no connection"
            except APIStatusError as error:
                return str(error.code)
            except APIError as error:
                return f"{type(error).__name__}: {error}"
        self.texts.add(answer.choices[0].message.content or "")
        return "answered"


class Soak:
    """A cluster, and what is done to it. Each fault is over when its method returns."""

    def __init__(self, cluster: Cluster, random: Random) -> None:
        self._cluster = cluster
        self._lan = cluster.lan
        self._random = random
        self.done: list[str] = []

    def run(self, count: int) -> None:
        kinds: list[Callable[[], None]] = [
            self.kill,
            self.stop,
            self.cut,
            self.pull,
            self.suspend,
            self.partition,
            self.deafen,
            self.impair,
            self.kill_runner,
            self.another_card,
            self.readdress,
            self.cut_master,
        ]
        order = [*chain(*repeat(kinds, -(-count // len(kinds))))][:count]
        self._random.shuffle(order)
        for fault in order:
            self.done.append(fault.__name__)
            fault()
            self._cluster.agree()

    def kill(self) -> None:
        self._restart(Host.kill)

    def stop(self) -> None:
        self._restart(Host.stop)

    def _restart(self, end: Callable[[Host], None]) -> None:
        mortal = [host for host in self._cluster.hosts if host.number not in IMMORTAL]
        master = self._cluster.master()
        host = master if master in mortal else self._random.choice(mortal)
        end(host)
        self._cluster.agree()
        self._cluster.start(host.number)

    def cut(self) -> None:
        _, rest = self._one()
        self._lan.partition([other.number for other in rest])
        self._cluster.agree(*rest)
        self._lan.heal()

    def cut_master(self) -> None:
        _, rest = self._cluster.roles()
        self._lan.partition([other.number for other in rest])
        self._cluster.agree(*rest)
        self._lan.heal()

    def pull(self) -> None:
        host, rest = self._one()
        self._lan.unplug(host.number)
        self._cluster.agree(*rest)
        self._lan.plug(host.number)

    def suspend(self) -> None:
        host, rest = self._one()
        host.suspend()
        self._cluster.agree(*rest)
        host.resume()

    def partition(self) -> None:
        hosts = self._cluster.hosts
        self._random.shuffle(hosts)
        halves = (hosts[:2], hosts[2:])
        self._lan.partition(*([host.number for host in half] for half in halves))
        for half in halves:
            self._cluster.agree(*half)
        self._lan.heal()

    def deafen(self) -> None:
        """One host is not heard by another for a while; the others hear both."""
        source, target = self._random.sample(self._cluster.hosts, 2)
        self._lan.block(source.number, target.number)
        self._chats(2)
        self._lan.heal()

    def impair(self) -> None:
        host, _ = self._one()
        self._lan.impair(host.number, delay=0.02, jitter=0.02, loss=0.1, seed=SEED)
        self._chats(2)
        self._lan.heal()

    def kill_runner(self) -> None:
        host = self._cluster.hosts[0]
        instance = self._random.choice(list(host.state()["instances"].values()))
        self._cluster.ready(instance)
        killed = runner_of(host, instance)
        psutil.Process(killed["pid"]).kill()
        host.wait(lambda state: runner_in(state, instance)["restarts"] > killed["restarts"])

    def another_card(self) -> None:
        host, _ = self._one()
        self._lan.add_card(host.number)
        self._chats(1)
        self._lan.remove_card(host.number)

    def readdress(self) -> None:
        host, _ = self._one()
        old = host.ip
        host.readdress("10.77.0.99")
        self._cluster.agree()
        host.readdress(old)

    def _one(self) -> tuple[Host, list[Host]]:
        """Some host, and the others."""
        host = self._random.choice(self._cluster.hosts)
        return host, [other for other in self._cluster.hosts if other is not host]

    def _chats(self, count: int) -> None:
        """Some time passes, in which the clients that can have their answers."""
        for _ in range(count):
            for host in self._cluster.hosts:
                with openai(host, retries=8) as client:
                    client.chat.completions.create(
                        model="tiny",
                        messages=[{"role": "user", "content": "Hello"}],
                        max_tokens=64,
                    )


@contextmanager
def trickle(hosts: list[Host]) -> Iterator[list[Client]]:
    stop = threading.Event()
    clients = [Client(host, stop) for host in hosts]
    for client in clients:
        client.start()
    try:
        yield clients
    finally:
        stop.set()
        for client in clients:
            client.join()


@pytest.fixture
def cluster(
    make_lan: MakeLan, models: Path, monkeypatch: pytest.MonkeyPatch, measured: Path
) -> Cluster:
    monkeypatch.setenv("PYTHONPATH", probed_path())
    return Cluster(make_lan(4), models_dir=models)


def test_faults_under_load(cluster: Cluster) -> None:
    hosts = cluster.start()
    cluster.agree()
    # One on each, since a host that is alone would place the model anew.
    instances = [cluster.create(hosts[0], host) for host in hosts]
    for host in hosts:
        answers(host, "tiny")
    before = {number: Holding.of(hosts[number].daemon) for number in IMMORTAL}
    pids = {number: hosts[number].daemon.pid for number in IMMORTAL}
    soak = Soak(cluster, Random(SEED))  # noqa: S311  the same faults each time
    try:
        with trickle(hosts) as clients:
            soak.run(FAULTS)
    except BaseException as error:
        error.add_note(f"seed {SEED}, faults until then: {soak.done}")
        raise

    cluster.agree()
    for instance in instances:
        cluster.ready(instance)
    state = cluster.equal_states()
    assert set(state["instances"]) == {one["instance_id"] for one in instances}
    assert len(state["nodes"]) == len(hosts)
    for host in hosts:
        answers(host, "tiny", retries=8)
    check_clients(clients)
    assert {number: hosts[number].daemon.pid for number in IMMORTAL} == pids
    check_holdings(hosts, before, instances)
    cluster.check_logs(EXPECTED)


def check_clients(clients: list[Client]) -> None:
    """Each had answers, all the same, and was told nothing but the truth otherwise."""
    assert len({text for client in clients for text in client.texts}) == 1
    for client in clients:
        assert client.outcomes["answered"] > 0
        assert set(client.outcomes) <= HONEST | {"answered", "no connection"}, client.outcomes


def check_holdings(hosts: list[Host], before: dict[int, Holding], instances: list[Json]) -> None:
    runners = {runner_of(hosts[0], instance)["pid"] for instance in instances}
    assert frozenset().union(*(Holding.of(host.daemon).children for host in hosts)) == runners
    for number, first in before.items():
        # What has just ended may still be on its way out.
        eventually(lambda n=number, f=first: not Holding.of(hosts[n].daemon).is_more_than(f))
