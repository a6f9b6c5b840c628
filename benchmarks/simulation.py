"""Elections of large clusters in the simulator: how many messages, how long, any broken promise.

    python -m benchmarks.simulation [--nodes 1000] [--seeds 1000] [--jobs 1] [--loss 0.05]

Each seed is one cluster that loses its master in one of the ways of `tests.simulator.stories`, on
a network with its own latencies, every second one with lost and late messages. All times are
virtual, but for the last line. A formed cluster is the start of several seeds: each is a fork of
the process, with random numbers of its own.
"""

import argparse
import json
import os
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import log2
from random import Random

from tests.simulator.checks import Breach, components, led
from tests.simulator.network import Network
from tests.simulator.stories import LOSSES
from tests.simulator.world import World

# Seeds that share a formed cluster.
_SHARED = 25
# Virtual seconds between two looks at who is the master.
_STEP = 0.25


@dataclass(frozen=True)
class Outcome:
    """What came of a seed: `seconds` until the last survivor knew the new master; `wrong` is what
    went wrong, if anything did."""

    seed: int
    how: str
    lossy: bool
    seconds: float = 0.0
    election: int = 0
    heartbeats: float = 0.0
    wrong: str | None = None


def formed(nodes: int, seed: int) -> World:
    """A quiet cluster; every fifth node may not be master."""
    world = World(seed, network=Network(save=0.005))
    for number in range(nodes):
        world.add(f"{number:04d}", eligible=nodes < 5 or number % 5 != 4)
    world.form()
    return world


def lose_master(world: World, seed: int, loss: float) -> Outcome:
    """Let a formed cluster lose its master."""
    how = LOSSES[seed % len(LOSSES)]
    lossy = seed // len(LOSSES) % 2 == 1
    world.random = Random(seed)
    world.network.spread = world.random.choice([0.0003, 0.001, 0.005])
    if lossy:
        world.network.loss, world.network.stall = loss, 0.02
    world.run(world.random.uniform(0.4, 0.8))
    start, before = world.now, Counter(world.checks.sent)
    try:
        how.lose(world, str(world.nodes["0000"].core.master_id))
        wrong = until_led(world, how.seconds)
    except Breach as breach:
        return Outcome(seed, how.name, lossy, wrong=f"breach: {breach}")
    sent = world.checks.election_messages - sum(
        before[kind] for kind in ("Election", "Alive", "Coordinator", "Acknowledged")
    )
    beats = (world.checks.sent["Heartbeat"] - before["Heartbeat"]) / (world.now - start)
    seconds = world.checks.last_change - start
    return Outcome(seed, how.name, lossy, seconds, sent, beats, wrong and f"late: {wrong[:200]}")


def until_led(world: World, limit: float) -> str | None:
    """Let time pass until the survivors have had one master for a moment; else what is wrong."""
    end = world.now + limit
    wrong: str | None = "nothing was looked at"
    while world.now < end:
        settled = wrong is None
        world.run(_STEP)
        wrong = led(max(components(world), key=len))
        if settled and wrong is None:
            break
    return wrong


def forked(world: World, seed: int, loss: float) -> int:
    """Start a process that plays one seed; the end of the pipe that its outcome comes from."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(reader)
        with os.fdopen(writer, "w") as out:
            json.dump(asdict(lose_master(world, seed, loss)), out)
            out.flush()
            os._exit(0)
    os.close(writer)
    return reader


def outcomes(nodes: int, seeds: range, jobs: int, loss: float) -> Iterator[Outcome]:
    for first in range(seeds.start, seeds.stop, _SHARED):
        world = formed(nodes, first)
        waiting = list(range(first, min(first + _SHARED, seeds.stop)))
        while waiting:
            now, waiting = waiting[:jobs], waiting[jobs:]
            readers = [forked(world, seed, loss) for seed in now]
            for reader in readers:
                with os.fdopen(reader) as came:
                    yield Outcome(**json.loads(came.read()))
                os.wait()


def report(nodes: int, found: list[Outcome]) -> None:
    bound = round(nodes * log2(nodes))
    print(f"\n{nodes} nodes, n log2 n = {bound}; seconds and messages: median, worst\n")
    print(f"{'master lost by':32}{'seeds':>6}{'seconds':>16}{'messages':>14}{'beats/node/s':>14}")
    for how in LOSSES:
        for lossy in (False, True):
            row = [each for each in found if each.how == how.name and each.lossy is lossy]
            if not row:
                continue
            seconds = [each.seconds for each in row]
            sent = [each.election for each in row]
            beats = statistics.median(each.heartbeats for each in row) / nodes
            name = how.name + (", lossy" if lossy else "")
            print(
                f"{name:32}{len(row):6}"
                f"{statistics.median(seconds):8.3f}{max(seconds):8.3f}"
                f"{statistics.median(sent):7.0f}{max(sent):7}{beats:14.1f}"
            )
    wrong = [each for each in found if each.wrong]
    print(f"\nbroken promises, or late: {len(wrong)} of {len(found)}")
    for each in wrong[:20]:
        print(f"  seed {each.seed} ({each.how}): {each.wrong}")
    print(f"above n log2 n messages: {sum(each.election > bound for each in found)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once")
    parser.add_argument("--loss", type=float, default=0.05, help="of the lossy seeds")
    arguments = parser.parse_args()
    started = time.monotonic()
    found: list[Outcome] = []
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    try:
        for outcome in outcomes(arguments.nodes, seeds, arguments.jobs, arguments.loss):
            found.append(outcome)
            if len(found) % 100 == 0:
                print(f"{len(found)} seeds, {time.monotonic() - started:.0f} s", flush=True)
    except KeyboardInterrupt:
        print("stopped early")
    report(arguments.nodes, found)
    print(f"\nreal time: {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
