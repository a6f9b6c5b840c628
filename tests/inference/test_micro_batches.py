from exo.inference.micro_batches import MicroBatches


def taught(
    stages: int, fixed: float, per_row: float, hop: float, varies: float = 0.0
) -> MicroBatches:
    batches = MicroBatches(stages)
    for number, rows in enumerate((1, 2, 4, 8, 4, 2, 1) * 20):
        seconds = fixed + per_row * rows
        batches.observe(rows, seconds * (1 + varies * (-1) ** number))
        batches.travelled(hop)
    return batches


def test_a_stage_whose_time_grows_with_its_rows_is_given_as_many_groups_as_stages():
    assert taught(3, 0.0, 0.01, 0.0).groups(12) == 3


def test_slow_hops_are_hidden_by_more_groups():
    assert taught(2, 0.0, 0.01, 0.05).groups(8) == 4


def test_where_times_vary_groups_lie_ready_for_the_slower_stage():
    assert taught(2, 0.0, 0.01, 0.0, varies=0.02).groups(8) == 2
    assert taught(2, 0.0, 0.01, 0.0, varies=0.2).groups(8) == 4


def test_where_a_step_takes_as_long_with_fewer_rows_there_are_no_more_groups_for_that():
    assert taught(2, 0.1, 0.0, 0.0, varies=0.2).groups(8) == 2


def test_there_are_never_more_groups_than_rows_and_one_stage_has_one():
    assert taught(4, 0.0, 0.01, 0.0).groups(2) == 2
    assert MicroBatches(1).groups(64) == 1


def test_before_anything_is_known_every_stage_gets_a_group():
    assert MicroBatches(3).groups(8) == 3
