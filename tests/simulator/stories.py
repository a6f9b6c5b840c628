"""What may happen to a cluster: by chance, from a seed."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from exo.p2p.core import CoreOptions
from tests.simulator.network import Network
from tests.simulator.world import World

# A large cluster in small: nodes hear only some of the others.
RING = CoreOptions(mesh=4, neighbours=4, standbys=1)


def troubled(seed: int, sizes: tuple[int, int], options: CoreOptions | None = None) -> World:
    """A cluster after up to ten troubles, still in the last of them."""
    random = Random(seed)  # noqa: S311  no secrets
    network = Network(
        loss=random.choice([0, 0, 0.05]),
        stall=random.choice([0, 0.02]),
        save=random.choice([0, 0.005, 0.05]),
    )
    world = World(seed, options=options, network=network, wire=seed % 8 == 0)
    names = [f"{number:02d}" for number in range(random.randint(*sizes))]
    for name in names:
        # What discovery misses, the user has told: all find each other in the end.
        known = names[0] if name != names[0] else names[-1]
        world.add(name, eligible=random.random() < 0.85, knows=(known,))
    for name in names:
        world.start(name)
        world.announce(name)
        world.run(random.choice([0, 0.1, 1]))
    world.run(random.uniform(0, 3))
    for _ in range(random.randint(1, 10)):
        random.choice(TROUBLES)(world, random, random.choice(names))
        world.run(random.choice([0, 0.01, 0.3, 1, 3, 8]))
    return world


def repair(world: World) -> None:
    """Mend the network, and have every node run."""
    world.run(1)  # Who is about to stop has stopped by then.
    world.network.heal()
    world.network.loss = 0
    for name, node in world.nodes.items():
        if node.suspended:
            world.resume(name)
        if not node.running:
            world.start(name)
            world.announce(name)


def _kill(world: World, random: Random, name: str) -> None:
    if world.nodes[name].running:
        world.kill(name)


def _leave(world: World, random: Random, name: str) -> None:
    if world.nodes[name].running:
        world.leave(name)


def _suspend(world: World, random: Random, name: str) -> None:
    if world.nodes[name].running:
        world.suspend(name)


def _resume(world: World, random: Random, name: str) -> None:
    if world.nodes[name].suspended:
        world.resume(name)


def _restart(world: World, random: Random, name: str) -> None:
    if world.nodes[name].running:
        return
    if random.random() < 0.3:
        world.wipe(name)
    world.start(name)
    if random.random() < 0.7:
        world.announce(name)


def _partition(world: World, random: Random, name: str) -> None:
    names = list(world.nodes)
    random.shuffle(names)
    cut = random.randint(1, len(names))
    world.network.partition(names[:cut], names[cut:])


def _heal(world: World, random: Random, name: str) -> None:
    world.network.heal()


def _block(world: World, random: Random, name: str) -> None:
    world.network.block(name, random.choice(list(world.nodes)))


def _separate(world: World, random: Random, name: str) -> None:
    world.network.separate(name, random.choice(list(world.nodes)))


def _isolate(world: World, random: Random, name: str) -> None:
    world.network.isolate(name)


def _move(world: World, random: Random, name: str) -> None:
    world.move(name)


TROUBLES: tuple[Callable[[World, Random, str], None], ...] = (
    _kill,
    _leave,
    _suspend,
    _resume,
    _restart,
    _partition,
    _heal,
    _block,
    _separate,
    _isolate,
    _move,
)


@dataclass(frozen=True)
class Loss:
    """How a cluster may lose its master: `seconds` until a new one must be known to all who can
    know it."""

    name: str
    seconds: float
    lose: Callable[[World, str], None]


def _and_the_next(world: World, master: str) -> None:
    eligible = sorted(name for name, node in world.nodes.items() if node.eligible)
    for name in {master, *eligible[-3:]}:
        world.network.isolate(name)


CABLE = Loss("cable", 4.0, lambda world, master: world.network.isolate(master))
LOSSES = (
    Loss("kill", 1.0, lambda world, master: world.kill(master)),
    Loss("leave", 0.5, lambda world, master: world.leave(master)),
    CABLE,
    Loss("suspend", 4.0, lambda world, master: world.suspend(master)),
    Loss("cable of the first four", 5.0, _and_the_next),
)
