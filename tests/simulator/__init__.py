"""A cluster in one process: virtual time, a network with seeded faults, and the very same `Core`
that the daemon drives. See `world`."""

from tests.simulator.checks import Breach, agreed
from tests.simulator.network import Network
from tests.simulator.node import Node
from tests.simulator.world import World

__all__ = ["Breach", "Network", "Node", "World", "agreed"]
