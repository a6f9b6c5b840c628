from exo.inference.copies import Copies
from exo.inference.steps import Close, Decode, Forget, Op, Step, Trim


def decode(group: int, *ops: Op) -> Step:
    return Step(number=0, ops=ops, work=Decode(group=group, positions=(1,), tokens=(1,)))


def test_copies_are_made_in_their_step_and_in_the_next_one_of_each_other_group():
    copies = Copies()
    assert not copies.in_step(decode(0), [0, 1, 2])
    assert copies.in_step(decode(0, Close(sequence=9)), [0, 1, 2])
    assert not copies.in_step(decode(0), [0, 1, 2])
    assert copies.in_step(decode(1), [0, 1, 2])
    assert not copies.in_step(decode(1), [0, 1, 2])
    assert copies.in_step(decode(2), [0, 1, 2])


def test_a_step_without_work_leaves_them_to_all_groups():
    copies = Copies()
    assert copies.in_step(Step(number=0, ops=(Close(sequence=9),)), [0, 1])
    assert copies.in_step(decode(0), [0, 1])
    assert copies.in_step(decode(1), [0, 1])
    assert not copies.in_step(decode(0), [0, 1])


def test_they_can_be_forgotten():
    copies = Copies()
    copies.in_step(Step(number=0, ops=(Close(sequence=9),)), [0])
    copies.clear()
    assert not copies.in_step(decode(0), [0])


def test_a_wrong_draft_is_no_copy():
    """Every step of a group may follow one, and what those take is to be learned."""
    copies = Copies()
    assert not copies.in_step(decode(0, Trim(counts={1: 2}), Forget(entry=3)), [0])


def test_a_group_that_has_ended_leaves_nothing_to_one_of_its_name():
    copies = Copies()
    copies.in_step(Step(number=0, ops=(Close(sequence=9),)), [0, 1])
    assert copies.in_step(decode(0), [0])
    assert not copies.in_step(decode(1), [0, 1])
