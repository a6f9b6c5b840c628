from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from exo.p2p.core import Status
from exo.p2p.peers import Fact
from exo.p2p.roster import Roster
from tests.p2p.facts import fact, peer

STATUSES = st.sampled_from([Status.ALIVE, Status.DEAD, Status.LEFT])
FACTS = st.builds(fact, st.sampled_from("BCDE"), STATUSES, st.integers(0, 3))


def roster(*facts: Fact) -> Roster:
    made = Roster(peer("A"))
    for each in facts:
        made.merge(each, 1.0)
    return made


def test_a_new_list_has_this_node():
    made = roster()
    assert list(made) == made.living == made.candidates == ["A"]
    assert made["A"].status is Status.ALIVE


def test_a_higher_incarnation_is_true():
    made = roster(fact("B", Status.DEAD, 1), fact("B", Status.ALIVE, 2))
    assert made["B"].status is Status.ALIVE
    assert not made.merge(fact("B", Status.DEAD, 1), 2.0)


def test_at_the_same_incarnation_it_cannot_come_back():
    made = roster(fact("B"), fact("B", Status.DEAD))
    assert not made.merge(fact("B"), 2.0)
    assert made.merge(fact("B", Status.LEFT), 2.0)
    assert not made.merge(fact("B", Status.DEAD), 2.0)


def test_who_was_never_known_cannot_die():
    assert "B" not in roster(fact("B", Status.DEAD))


@given(st.lists(FACTS), st.randoms())
def test_the_order_of_facts_does_not_matter(facts: list[Fact], random):
    # Deaths of the unknown are the exception: let all be known.
    known = [fact(name) for name in "BCDE"]
    one = roster(*known, *facts)
    random.shuffle(facts)
    other = roster(*known, *facts)
    assert {name: one.fact(name) for name in one} == {name: other.fact(name) for name in other}
    assert one.digest == other.digest
    assert one.living == other.living == sorted(one.living)


@given(st.lists(FACTS))
def test_nothing_is_news_that_changes_nothing(facts: list[Fact]):
    made = roster()
    for each in facts:
        assert made.is_news(each) == made.merge(each, 1.0)


def test_the_digest_tells_lists_of_living_members_apart():
    assert roster(fact("B")).digest != roster(fact("C")).digest
    assert roster(fact("B")).digest != roster(fact("B", incarnation=1)).digest
    assert roster(fact("B"), fact("B", Status.DEAD)).digest == roster().digest


@given(st.lists(FACTS, max_size=60), st.integers(1, 5))
def test_the_log_tells_all_piece_by_piece(facts: list[Fact], limit: int):
    made = roster(*facts)
    position, told = 0, []
    while position < made.end:
        piece, position = made.since_position(position, limit)
        assert len(piece) <= limit
        told += piece
    others = {name: made.fact(name) for name in made if name != "A"}
    assert {each.peer.peer_id: each for each in told} == others
    assert made.since_position(made.end, limit) == ((), made.end)


def test_the_log_tells_only_what_is_new():
    made = roster(fact("B"), fact("C"))
    end = made.end
    made.merge(fact("B", Status.DEAD), 2.0)
    assert made.since_position(end, 10) == ((fact("B", Status.DEAD),), made.end)


def test_the_log_does_not_grow_for_ever():
    made = roster()
    for incarnation in range(1000):
        made.merge(fact("B", incarnation=incarnation), 1.0)
    assert made.since_position(0, 10)[0][-1] == fact("B", incarnation=999)
    assert len(made._log) < 50


def test_the_dead_are_forgotten_after_a_while():
    made = roster(fact("B"), fact("C"), fact("B", Status.DEAD))
    made.forget(1.0)
    assert "B" in made
    made.forget(1.5)
    assert sorted(made) == ["A", "C"]
    assert made.since_position(0, 10)[0] == (fact("C"),)


def test_neighbours_are_nearest_on_the_ring():
    made = roster(*(fact(name) for name in "BCDEFG"))
    assert made.neighbours(4) == ["F", "G", "B", "C"]
    assert sorted(made.neighbours(100)) == list("BCDEFG")


def test_near_is_who_would_be_a_neighbour():
    names = "BCDEFGHI"
    made = roster(*(fact(name) for name in names))
    for name in names:
        made.merge(fact(name, Status.DEAD), 2.0)
        near = made.is_near(name, 4)
        made.merge(fact(name, Status.ALIVE, 1), 3.0)
        assert near == (name in made.neighbours(4))
        made = roster(*(fact(other) for other in names))


def test_only_the_eligible_are_candidates():
    made = roster(fact("B"), Fact(peer("C", eligible=False), Status.ALIVE, 0))
    assert made.candidates == ["A", "B"]
    assert made.rank_from_top("A") == 1
    assert not made.is_candidate("C")


def test_moving_raises_the_incarnation():
    made = roster(fact("B"))
    end = made.end
    made.move(replace(made.me, addresses=("/memory/9",)), 2.0)
    assert made.own == Fact(replace(peer("A"), addresses=("/memory/9",)), Status.ALIVE, 1)
    assert made.has_changed(end)
    assert not made.has_changed(made.end)
