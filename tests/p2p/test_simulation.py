"""Clusters of three to a thousand nodes, with faults by chance. All times here are virtual.

`benchmarks/simulation.py` does the same with as many nodes and seeds as one has patience for.
"""

from itertools import chain
from math import log2

import pytest

from exo.p2p.core import CoreOptions, Stamp, Status
from tests.simulator.checks import agreed, components, led
from tests.simulator.network import Network
from tests.simulator.stories import CABLE, LOSSES, RING, Loss, repair, troubled
from tests.simulator.trace import Trace
from tests.simulator.world import World


def cluster(nodes: int, seed: int = 1, *, loss: float = 0.0) -> World:
    network = Network(loss=loss, stall=0.02 if loss else 0, save=0.005)
    world = World(seed, network=network)
    for number in range(nodes):
        world.add(f"{number:04d}", eligible=nodes < 5 or number % 5 != 4)
    world.form()
    return world


def master_of(world: World) -> str:
    group = max(components(world), key=len)
    assert led(group) is None
    assert group[0].core.master_id
    return group[0].core.master_id


def lose_master(world: World, how: Loss) -> float:
    """Seconds until the last survivor knew the new master."""
    world.checks.sent.clear()
    start = world.now
    how.lose(world, master_of(world))
    world.run(how.seconds)
    survivors = max(components(world), key=len)
    assert led(survivors) is None
    return world.checks.last_change - start


@pytest.mark.parametrize("seeds", [range(start, start + 50) for start in range(0, 200, 50)])
def test_after_any_troubles_there_is_one_master_and_one_list_of_members(seeds: range):
    for seed in seeds:
        world = troubled(seed, sizes=(3, 9))
        repair(world)
        assert world.run_until_agreed(30) is not None, f"seed {seed}: {agreed(world)}"
        world.run(5)
        assert agreed(world) is None, f"seed {seed}: {agreed(world)}"


def test_also_where_nodes_hear_only_some_of_the_others():
    for seed in range(1000, 1060):
        world = troubled(seed, sizes=(6, 12), options=RING)
        repair(world)
        assert world.run_until_agreed(30) is not None, f"seed {seed}: {agreed(world)}"


@pytest.mark.parametrize("how", LOSSES, ids=lambda how: how.name)
def test_a_lost_master_is_replaced_in_time(how: Loss):
    for seed in range(10):
        for loss in (0, 0.05):
            assert lose_master(cluster(7, seed, loss=loss), how) < how.seconds


def test_a_master_that_leaves_is_never_missed():
    world = cluster(5)
    world.trace = Trace()
    world.leave(master_of(world))
    world.run(3)
    assert not any("MASTER unknown" in line for line in world.trace.lines)
    assert agreed(world) is None


def test_a_suspended_master_comes_back_as_a_follower_and_as_the_same_member():
    world = cluster(5)
    master = master_of(world)
    world.suspend(master)
    world.run(10)
    world.resume(master)
    world.run(1)
    assert agreed(world) is None
    assert master_of(world) != master
    assert len(world.nodes["0000"].core.members) == 5


def test_a_short_partition_heals_in_about_two_seconds():
    for seed in range(10):
        world = cluster(6, seed)
        world.network.partition(["0000", "0001", "0002"], ["0003", "0004", "0005"])
        world.run(10)
        world.network.heal()
        healed = world.run_until_agreed(10)
        assert healed is not None
        assert healed < 2.5


def test_what_a_node_says_of_itself_reaches_all_within_two_periods():
    world = cluster(8)
    world.tell("0003", Stamp({"free": 5}))
    world.run(2 * CoreOptions().period)
    for node in world.nodes.values():
        assert node.core.members["0003"].metadata == {"free": 5}


def test_where_a_node_has_moved_reaches_all_within_two_periods():
    world = cluster(8)
    world.move("0003")
    world.run(2 * CoreOptions().period)
    assert agreed(world) is None
    assert "/moved/1" in world.nodes["0003"].core.me.addresses


def test_who_is_gone_is_forgotten():
    world = cluster(3)
    world.kill("0000")
    world.run(5)
    assert world.nodes["0001"].core.members["0000"].status is Status.DEAD
    world.run(CoreOptions().remember + 100)
    assert "0000" not in world.nodes["0001"].core.members


@pytest.mark.parametrize("seed", range(3))
def test_a_hundred_nodes(seed: int):
    world = cluster(100, seed, loss=0.05)
    assert led(components(world)[0]) is None
    for how in LOSSES:
        lose_master(world, how)
        assert world.checks.election_messages < 100 * log2(100)
    repair(world)
    world.network.loss = world.network.stall = 0
    assert world.run_until_agreed(30) is not None, agreed(world)


def test_a_thousand_nodes():
    world = cluster(1000)
    assert agreed(world) is None
    world.checks.sent.clear()
    world.run(CoreOptions().period)
    assert world.checks.sent["Heartbeat"] < 20 * 1000
    lose_master(world, CABLE)
    assert world.checks.election_messages < 1000 * log2(1000)


def test_a_run_can_be_repeated():
    def told(seed: int) -> list[object]:
        world = troubled(seed, sizes=(5, 5))
        return list(chain(world.checks.sent.items(), [world.random.random()]))

    assert told(5) == told(5)
