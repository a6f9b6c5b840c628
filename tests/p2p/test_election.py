"""One node's part in elections. Elections of several nodes are in `test_cluster`."""

from math import log2

import pytest

from exo.p2p.core import CoreOptions, MasterChanged, SaveTerm, Send, Status
from exo.p2p.election import Elections
from exo.p2p.events import Action
from exo.p2p.messages import Acknowledged, Alive, Claim, Coordinator, Election
from exo.p2p.roster import Roster
from exo.p2p.term import Term
from tests.p2p.facts import NOTHING, claim, fact, peer, sent, term, those

OPTIONS = CoreOptions()


class Node:
    """A node that takes part in elections; all others are linked with it."""

    def __init__(
        self, name: str, others: str, saved: Term | None = None, *, eligible: bool = True
    ) -> None:
        self.roster = Roster(peer(name, eligible=eligible))
        for other in others:
            self.roster.merge(fact(other), 0.0)
        self.actions: list[Action] = []
        self.links = dict.fromkeys(others)
        self.elections = Elections(self.roster, saved, OPTIONS, self.links, self.actions)
        self.elections.start(0.0)

    def done(self) -> list[Action]:
        """What it did since it was asked last; a term must be saved before it is spoken of."""
        actions = self.actions.copy()
        self.actions.clear()
        saved = [action.term for action in actions if isinstance(action, SaveTerm)]
        assert saved == sorted(saved)
        if saved:
            first = actions.index(SaveTerm(saved[0]))
            assert not sent(actions[:first], Coordinator)
        return actions

    def wait(self, start: float, seconds: float) -> list[Action]:
        """All that it does in some seconds."""
        end = start + seconds
        while (at := self.elections.next_time()) <= end:
            self.elections.tick(at)
        return self.done()

    def dies(self, name: str, now: float) -> list[Action]:
        """A member is dead; what follows at once."""
        known = self.roster.fact(name)
        assert known
        self.roster.merge(fact(name, Status.DEAD, known.incarnation), now)
        self.links.pop(name, None)
        self.elections.members_changed(now)
        self.elections.tick(now)
        return self.done()

    def follow(self, number: int, master: str, now: float = 0.1) -> None:
        self.elections.heard(master, claim(number, master), now)
        assert self.elections.master == master
        self.done()


def changes(actions: list[Action]) -> list[Term | None]:
    return [action.term for action in those(actions, MasterChanged)]


# Starting.


def test_a_lone_node_is_its_own_master_after_the_grace():
    node = Node("A", "")
    assert node.elections.next_time() == OPTIONS.grace
    assert changes(node.wait(0, 1)) == [term(1, "A")]
    assert node.elections.reigns


def test_a_number_is_never_used_again():
    node = Node("A", "", term(7, "B"))
    assert changes(node.wait(0, 1)) == [term(8, "A")]


def test_a_node_that_may_not_be_master_elects_nobody():
    node = Node("A", "", eligible=False)
    assert node.wait(0, 100) == []


def test_a_node_that_hears_of_a_master_follows_it():
    node = Node("D", "ABC")
    node.elections.heard("A", claim(3, "C"), 0.1)
    assert node.done() == [SaveTerm(term(3, "C")), MasterChanged(term(3, "C"))]
    assert node.wait(0, 100) == []


def test_a_term_that_nobody_reigns_in_is_no_reason_to_follow():
    node = Node("A", "BC")
    node.elections.heard("B", claim(3, "C", led=False), 0.1)
    assert node.done() == [SaveTerm(term(3, "C"))]
    assert node.elections.master is None


def test_a_new_link_is_given_the_time_to_tell_of_a_master():
    node = Node("A", "")
    node.elections.linked(OPTIONS.grace - 0.01)
    assert node.elections.next_time() == pytest.approx(OPTIONS.grace - 0.01 + OPTIONS.answer)


def test_but_many_new_links_do_not_put_it_off_for_ever():
    node = Node("A", "")
    for tenth in range(100):
        node.elections.linked(tenth / 10)
    assert node.elections.next_time() == OPTIONS.patience_max


def test_after_a_power_cut_the_last_master_comes_first():
    assert changes(Node("A", "BC", term(5, "A")).wait(0, OPTIONS.grace)) == [term(6, "A")]
    assert Node("C", "AB", term(5, "A")).wait(0, OPTIONS.grace) == []


# Losing the master.


def test_the_first_candidate_acts_at_once():
    node = Node("B", "AC")
    node.follow(1, "C")
    actions = node.dies("C", 5.0)
    assert actions == [
        MasterChanged(None),
        SaveTerm(term(2, "B")),
        MasterChanged(term(2, "B")),
        Send("A", Coordinator(term(2, "B"))),
    ]


def test_the_others_wait_and_then_ask():
    node = Node("A", "BC")
    node.follow(1, "C")
    assert changes(node.dies("C", 5.0)) == [None]
    assert node.elections.next_time() == pytest.approx(5 + OPTIONS.slot)
    asked = sent(node.wait(5, OPTIONS.slot), Election, "B")
    assert asked == [Election(claim(1, "C", led=False), fact("C", Status.DEAD))]


def test_the_further_down_the_longer():
    names = [f"{number:03d}" for number in range(100)]
    waits = []
    for position in (1, 2, 4, 8, 64):
        mine = names[98 - position]
        node = Node(mine, "")
        for name in names:
            if name != mine:
                node.roster.merge(fact(name), 0.0)
        node.elections.heard("099", claim(1, "099"), 0.1)
        node.dies("099", 5.0)
        waits.append(node.elections.next_time() - 5)
    assert waits == pytest.approx([OPTIONS.slot * (1 + log2(n)) for n in (1, 2, 4, 8, 64)])


def test_only_a_few_are_asked():
    node = Node("A", "BCDEFGH")
    node.follow(1, "H")
    node.dies("H", 5.0)
    asked = [action.peer_id for action in node.wait(5, 1) if isinstance(action, Send)]
    assert asked[:3] == ["G", "F", "E"]
    assert asked[:3] == asked[3:6]
    assert asked[6:9] == ["D", "C", "B"]


def test_if_nobody_answers_it_is_the_master():
    node = Node("A", "BC")
    node.follow(1, "C")
    node.dies("C", 5.0)
    assert changes(node.wait(5, OPTIONS.slot + 2 * OPTIONS.answer + 0.01)) == [term(2, "A")]


def test_who_answers_gets_time():
    node = Node("A", "BC")
    node.follow(1, "C")
    node.dies("C", 5.0)
    now = 5 + OPTIONS.slot
    node.wait(5, OPTIONS.slot)
    node.elections.answered("B", Alive(claim(1, "C", led=False)), now)
    assert node.wait(now, OPTIONS.promise - 0.01) == []
    assert sent(node.wait(now, OPTIONS.promise + 0.01), Election, "B")


def test_unless_it_dies():
    node = Node("A", "BC")
    node.follow(1, "C")
    node.dies("C", 5.0)
    node.wait(5, OPTIONS.slot)
    node.elections.answered("B", Alive(claim(1, "C", led=False)), 5.2)
    assert changes(node.dies("B", 5.3)) == [term(2, "A")]


def test_a_candidate_that_is_asked_answers_and_acts():
    node = Node("B", "AC")
    node.elections.asked("A", Election(NOTHING), 0.1)
    node.elections.tick(0.1)
    assert sent(node.actions, Alive, "A") == [Alive(NOTHING)]
    assert node.elections.next_time() == pytest.approx(0.1 + OPTIONS.slot)


def test_one_that_comes_later_does_not_answer():
    node = Node("A", "BC")
    node.elections.asked("B", Election(NOTHING), 0.1)
    assert node.done() == []


def test_who_knows_a_master_says_so_whoever_asks():
    node = Node("A", "BC")
    node.follow(1, "C")
    node.elections.asked("B", Election(NOTHING), 5.0)
    assert node.done() == [Send("B", Alive(claim(1, "C")))]


def test_a_node_that_was_asleep_first_listens():
    node = Node("B", "AC")
    node.follow(1, "C")
    node.elections.suspended(50.0)
    assert changes(node.dies("C", 50.0)) == [None]
    assert node.elections.next_time() == 50 + OPTIONS.patience
    node.elections.asked("A", Election(NOTHING), 50.1)
    assert node.elections.next_time() == 50 + OPTIONS.patience


# Being told.


def test_a_coordinator_is_followed_and_acknowledged():
    node = Node("A", "BC")
    node.elections.coordinator("C", Coordinator(term(1, "C")), 0.1)
    assert node.done() == [
        SaveTerm(term(1, "C")),
        MasterChanged(term(1, "C")),
        Send("C", Acknowledged(term(1, "C"))),
    ]


def test_one_of_a_lower_term_is_told_so():
    node = Node("A", "BC")
    node.follow(5, "C")
    node.elections.coordinator("B", Coordinator(term(4, "B")), 1.0)
    assert node.done() == [Send("B", Alive(claim(5, "C")))]


def test_nobody_speaks_for_another():
    node = Node("A", "BC")
    node.elections.coordinator("B", Coordinator(term(4, "C")), 1.0)
    assert node.done() == []


def test_at_the_same_number_the_higher_id_wins():
    node = Node("B", "AC")
    node.elections.coordinator("A", Coordinator(term(4, "A")), 1.0)
    node.elections.coordinator("C", Coordinator(term(4, "C")), 1.1)
    assert node.elections.master == "C"


def test_a_dead_master_is_not_followed_by_hearsay():
    node = Node("A", "BC")
    node.follow(1, "C")
    node.dies("C", 5.0)
    node.elections.heard("B", claim(1, "C"), 5.1)
    node.elections.members_changed(5.1)
    assert node.elections.master is None


def test_it_is_once_it_proves_to_live():
    node = Node("A", "BC")
    node.follow(1, "C")
    node.dies("C", 5.0)
    node.elections.heard("B", claim(1, "C"), 5.1)
    node.roster.merge(fact("C", Status.ALIVE, 1), 5.1)
    node.elections.members_changed(5.1)
    assert changes(node.done()) == [term(1, "C")]


def test_a_higher_reign_of_one_who_is_dead_here_is_waited_for():
    node = Node("B", "AC")
    node.follow(1, "C")
    node.dies("C", 5.0)
    assert node.elections.reigns
    node.elections.heard("A", claim(7, "C"), 6.0)
    assert changes(node.done()) == [None]
    assert node.wait(6, OPTIONS.patience - 0.01) == []
    assert changes(node.wait(6, OPTIONS.patience + 0.01)) == [term(8, "B")]


def test_who_denies_to_reign_does_not():
    node = Node("A", "BC")
    node.follow(1, "C")
    node.elections.heard("C", claim(1, "C", led=False), 5.0)
    assert changes(node.done()) == [None]
    node.elections.heard("B", claim(1, "C"), 5.1)
    assert node.elections.master is None


def test_one_who_has_not_heard_of_its_reign_yet_does_not_deny_it():
    node = Node("A", "BC")
    node.follow(1, "C")
    node.elections.inherit("C", term(2, "B"), 5.0)
    node.elections.heard("B", claim(1, "C"), 5.1)
    assert node.elections.master == "B"


# Being the master.


@pytest.fixture
def master() -> Node:
    node = Node("C", "AB")
    node.wait(0, OPTIONS.grace)
    assert node.elections.reigns
    return node


def test_a_master_that_hears_of_a_higher_reign_steps_down(master: Node):
    master.elections.heard("A", claim(9, "B"), 5.0)
    assert master.done() == [SaveTerm(term(9, "B")), MasterChanged(term(9, "B"))]


def test_a_reign_that_a_node_knows_nothing_of_is_not_its_own():
    for node in (Node("B", "AC"), Node("C", "AB")):
        node.follow(1, "A")
        me = node.roster.me.peer_id
        node.elections.heard("A", claim(9, me), 5.0)
        assert changes(node.done()) == [None]
        assert changes(node.wait(5, 0)) == [term(10, me)]


def test_a_master_outbids_a_term_that_nobody_reigns_in(master: Node):
    master.elections.heard("A", claim(9, "D", led=False), 5.0)
    assert changes(master.done()) == [term(10, "C")]


def test_its_followers_do_not_mind_such_a_term_but_pass_it_on():
    node = Node("A", "BC")
    node.follow(1, "C")
    node.elections.heard("B", claim(9, "B", led=False), 5.0)
    assert node.done() == []
    assert node.elections.claim == Claim(term(1, "C"), led=True, highest=9)


def test_a_master_outbids_a_number_that_it_hears_of(master: Node):
    master.elections.heard("A", Claim(term(1, "C"), led=True, highest=9), 5.0)
    assert changes(master.done()) == [term(10, "C")]


def test_a_node_with_a_higher_stored_term_waits_to_be_outbid():
    node = Node("D", "ABC", term(40, "D"))
    node.elections.heard("A", claim(1, "C"), 0.5)
    assert node.wait(0, 0.5 + OPTIONS.patience - 0.01) == []
    node.elections.coordinator("C", Coordinator(term(41, "C")), 1.2)
    assert changes(node.done()) == [term(41, "C")]


def test_a_master_tells_again_who_does_not_acknowledge(master: Node):
    master.elections.acknowledged("A", Acknowledged(term(1, "C")))
    again = master.wait(OPTIONS.grace, 60)
    assert [action.peer_id for action in again] == ["B"] * OPTIONS.retries


def test_a_heartbeat_acknowledges_too(master: Node):
    for name in "AB":
        master.elections.heard(name, claim(1, "C"), 1.0)
    assert sent(master.wait(OPTIONS.grace, 60), Coordinator) == []


def test_a_master_that_leaves_names_the_highest_other(master: Node):
    assert master.elections.leave() == term(2, "B")
    assert master.done() == [SaveTerm(term(2, "B")), MasterChanged(term(2, "B"))]


def test_a_master_that_is_alone_names_nobody():
    node = Node("A", "")
    node.wait(0, 1)
    assert node.elections.leave() is None


def test_one_who_is_no_master_names_nobody():
    node = Node("A", "BC")
    node.follow(1, "C")
    assert node.elections.leave() is None


def test_the_heir_reigns_at_once():
    node = Node("B", "AC")
    node.follow(1, "C")
    node.elections.inherit("C", term(2, "B"), 5.0)
    assert changes(node.done()) == [term(2, "B")]
    assert node.elections.reigns


def test_an_old_testament_is_void():
    node = Node("B", "AC")
    node.follow(5, "C")
    node.elections.inherit("A", term(4, "B"), 6.0)
    assert node.done() == []
