"""A simulated node: a core, a disk and the links of one life after the other. Carries out actions
as the daemon's shell does: in order, and none before a term that precedes it is on disk."""

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from exo.p2p.core import (
    Action,
    Core,
    Dial,
    Disconnect,
    Event,
    MasterChanged,
    MemberChanged,
    PeerInfo,
    SaveTerm,
    Send,
    Tick,
    WakeAt,
)
from exo.p2p.peers import Fact
from exo.p2p.term import Term

if TYPE_CHECKING:
    from tests.simulator.world import Link, World


class Node:
    """`disk` is the term that is saved; `knows` the names of its static peers."""

    def __init__(self, world: "World", name: str, *, eligible: bool, knows: tuple[str, ...]):
        self.world = world
        self.name = name
        self.eligible = eligible
        self.knows = knows
        self.disk: Term | None = None
        self.life = 0
        self.running = False
        self.suspended = False
        self.links: dict[str, Link] = {}
        self.core = self._new_core()
        self.wake_at = float("inf")
        # What comes while the node is suspended, and what waits for the disk.
        self.inbox: deque[Callable[[], None]] = deque()
        self.actions: deque[Action] = deque()
        self.saving = False

    @property
    def address(self) -> str:
        return f"/memory/{self.name}"

    def _new_core(self) -> Core:
        boot = f"{self.name}{self.life}"
        me = PeerInfo(self.name, self.name.lower(), "1", boot, (self.address,), self.eligible)
        seed = self.world.random.getrandbits(32)
        return Core(me, self.disk, self.world.options, seed)

    def start(self, known: Iterable[Fact] = ()) -> None:
        self.core = self._new_core()
        for fact in known:
            self.core.members.merge(fact, self.world.now)
        self.running, self.suspended, self.saving = True, False, False
        self.links = {}
        self.inbox.clear()
        self.actions.clear()
        self.handle(Tick())

    def stop(self) -> None:
        """The process is gone, however it went."""
        self.running = self.suspended = False
        self.life += 1
        self.wake_at = float("inf")

    def handle(self, event: Event) -> None:
        """Let the core see an event, and do what it says."""
        world = self.world
        if world.trace is not None:
            world.trace.event(world.now, self, event)
        self.actions.extend(self.core.handle(event, world.now))
        self._perform()

    def deliver(self, link: "Link", event: Event) -> None:
        """Something comes over a link."""
        if not self.running or self.links.get(link.other(self.name)) is not link:
            return
        if self.suspended:
            self.inbox.append(lambda: self.deliver(link, event))
            return
        self.handle(event)

    def tick(self, at: float) -> None:
        if self.running and not self.suspended and self.wake_at == at:
            self.handle(Tick())

    def resume(self) -> None:
        self.suspended = False
        while self.inbox and not self.suspended:
            self.inbox.popleft()()
        if self.wake_at <= self.world.now:
            self.handle(Tick())

    def _perform(self) -> None:
        while self.actions and not self.saving:
            action = self.actions.popleft()
            if type(action) is Send:
                self.world.send(self, action.peer_id, action.message)
            else:
                self._carry_out(action)

    def _carry_out(self, action: Action) -> None:
        world = self.world
        if world.trace is not None:
            world.trace.action(world.now, self, action)
        match action:
            case WakeAt(time=time):
                self.wake_at = time
                world.at(max(time, world.now), self.tick, time)
            case Dial():
                world.dial(self, action)
            case Disconnect(peer_id=peer_id):
                world.disconnect(self, peer_id)
            case SaveTerm(term=term) if world.network.save:
                self.saving = True
                world.at(world.now + world.network.save, self._saved, term, self.life)
            case SaveTerm(term=term):
                self._write(term)
            case MasterChanged(term=term):
                world.checks.master_changed(self, term)
            case MemberChanged() | Send():
                pass

    def _saved(self, term: Term, life: int) -> None:
        if life == self.life:
            self.saving = False
            self._write(term)
            self._perform()

    def _write(self, term: Term) -> None:
        self.world.checks.saved(self, term)
        self.disk = term
