"""Several nodes in the simulator: what must hold whatever happens, in whatever order."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from exo.p2p.core import Status
from tests.simulator.checks import agreed
from tests.simulator.network import Network
from tests.simulator.stories import RING, repair
from tests.simulator.world import World

NAMES = st.sampled_from("ABCDE")


class Cluster(RuleBasedStateMachine):
    """Five nodes and all that can happen to them. That no two reign in one term, that no node goes
    back to a lower term (also across restarts), and that none speaks of a term that is not on its
    disk, the simulator checks with each action."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(network=Network(save=0.003), wire=True)
        for name in "ABCDE":
            self.world.add(name, eligible=name != "D", knows="A" if name != "A" else "B")

    def of(self, name: str, *, running: bool, suspended: bool = False) -> bool:
        node = self.world.nodes[name]
        return node.running is running and node.suspended is suspended

    @rule(name=NAMES, empty=st.booleans(), found=st.booleans())
    def start(self, name: str, empty: bool, found: bool) -> None:
        if self.of(name, running=False):
            if empty:
                self.world.wipe(name)
            self.world.start(name)
            if found:
                self.world.announce(name)

    @rule(name=NAMES)
    def stop(self, name: str) -> None:
        if self.of(name, running=True):
            self.world.leave(name)

    @rule(name=NAMES)
    def kill(self, name: str) -> None:
        if self.world.nodes[name].running:
            self.world.kill(name)

    @rule(name=NAMES)
    def suspend(self, name: str) -> None:
        if self.of(name, running=True):
            self.world.suspend(name)

    @rule(name=NAMES)
    def resume(self, name: str) -> None:
        if self.of(name, running=True, suspended=True):
            self.world.resume(name)

    @rule(side=st.sets(NAMES, min_size=1, max_size=4))
    def partition(self, side: set[str]) -> None:
        self.world.network.partition(sorted(set("ABCDE") - side), sorted(side))

    @rule(one=NAMES, other=NAMES, both=st.booleans())
    def block(self, one: str, other: str, both: bool) -> None:
        if one != other:
            self.world.network.block(one, other)
            if both:
                self.world.network.block(other, one)

    @rule()
    def heal(self) -> None:
        self.world.network.heal()

    @rule(loss=st.sampled_from([0.0, 0.05, 0.3]))
    def lose(self, loss: float) -> None:
        self.world.network.loss = loss

    @rule(seconds=st.sampled_from([0.0005, 0.003, 0.1, 0.7, 2.5, 5.0]))
    def advance(self, seconds: float) -> None:
        self.world.run(seconds)

    @precondition(lambda self: any(node.running for node in self.world.nodes.values()))
    @invariant()
    def a_node_lives_for_itself(self) -> None:
        for node in self.world.nodes.values():
            if node.running:
                assert node.core.members[node.name].status is Status.ALIVE

    @invariant()
    def a_node_follows_the_master_of_its_term_or_nobody(self) -> None:
        for node in self.world.nodes.values():
            if node.running and (master := node.core.master_id):
                assert node.core.term
                assert node.core.term.master_id == master
                assert master in node.core.members.living

    def teardown(self) -> None:
        repair(self.world)
        self.world.run(30)
        assert agreed(self.world) is None


class RingCluster(Cluster):
    """The same, as if five were many."""

    def __init__(self) -> None:
        super().__init__()
        self.world.options = RING
        for name in "ABCDE":
            self.world.add(name, eligible=name != "D", knows="A" if name != "A" else "B")


TestCluster = Cluster.TestCase
TestRingCluster = RingCluster.TestCase
TestCluster.settings = settings(
    max_examples=60, stateful_step_count=25, suppress_health_check=list(HealthCheck)
)
TestRingCluster.settings = settings(TestCluster.settings, max_examples=30)
