"""Which sequences are rows of one micro-batch."""

from hypothesis import given
from hypothesis import strategies as st

from exo.inference.row_groups import RowGroups


def groups_of(*sizes: int) -> RowGroups:
    """Groups from 0 on with so many rows each; sequences are numbered from 0 on."""
    found, name = RowGroups(), 0
    for group, size in enumerate(sizes):
        for _ in range(size):
            found.add(name, group)
            name += 1
    return found


def test_a_new_row_opens_a_group_while_more_are_wanted_and_then_joins_the_smallest():
    groups = groups_of(3, 1)
    assert groups.smallest(3) == 2
    assert groups.smallest(2) == 1
    groups.remove(3)
    assert groups.sizes == [3]
    assert groups.smallest(2) == 1


def test_a_group_ends_with_its_last_row():
    groups = groups_of(2)
    assert groups.remove(1) == 0
    assert groups[0] == (0,)
    assert groups.remove(0) == 0
    assert list(groups) == []
    assert groups.remove(0) is None


def test_rows_that_are_being_computed_stay():
    groups = groups_of(1, 3)
    assert groups.move(2, busy={1}) is None
    assert groups.sizes == [1, 3]
    assert groups.move(2, busy={0}) == (3, 0)
    assert groups[0] == (0, 3)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.data())
def test_move_by_move_groups_become_as_many_as_wanted_and_of_equal_size(sizes, data):
    groups, rows = groups_of(*sizes), sum(sizes)
    wanted = data.draw(st.integers(1, rows))
    moves = 0
    while len(groups) != wanted or max(groups.sizes) - min(groups.sizes) > 1:
        before = {name: group for group in groups for name in groups[group]}
        name, group = groups.move(wanted, busy=())
        assert before[name] != group
        assert groups[group][-1] == name
        moves += 1
        assert moves <= rows * len(sizes), "rows go round in circles"
    assert sorted(name for group in groups for name in groups[group]) == list(range(rows))
