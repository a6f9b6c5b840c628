from exo.inference.micro_batches import MicroBatches


def taught(stages: int, fixed: float, per_row: float, hop: float) -> MicroBatches:
    batches = MicroBatches(stages)
    for rows in (1, 2, 4, 8, 4, 2, 1) * 20:
        batches.observe(rows, fixed + per_row * rows)
        batches.travelled(hop)
    return batches


def test_a_stage_whose_time_grows_with_its_rows_is_given_as_many_groups_as_stages():
    assert taught(3, 0.0, 0.01, 0.0).groups(12) == 3


def test_slow_hops_are_hidden_by_more_groups():
    assert taught(2, 0.0, 0.01, 0.05).groups(8) == 4


def test_there_are_never_more_groups_than_rows_and_one_stage_has_one():
    assert taught(4, 0.0, 0.01, 0.0).groups(2) == 2
    assert MicroBatches(1).groups(64) == 1


def test_before_anything_is_known_every_stage_gets_a_group():
    assert MicroBatches(3).groups(8) == 3
