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
    assert taught(3, 0.0, 0.01, 0.0).division(12) == (4, 4, 4)


def test_slow_hops_are_hidden_by_more_groups():
    assert taught(2, 0.0, 0.01, 0.05).division(8) == (2, 2, 2, 2)


def test_where_times_vary_groups_lie_ready_for_the_slower_stage():
    assert taught(2, 0.0, 0.01, 0.0, varies=0.02).division(8) == (4, 4)
    assert taught(2, 0.0, 0.01, 0.0, varies=0.2).division(8) == (2, 2, 2, 2)


def test_where_a_step_takes_as_long_with_fewer_rows_there_are_no_more_groups_for_that():
    assert taught(2, 0.1, 0.0, 0.0, varies=0.2).division(8) == (4, 4)


def test_there_are_never_more_groups_than_rows_and_one_stage_has_one():
    assert taught(4, 0.0, 0.01, 0.0).division(2) == (1, 1)
    assert MicroBatches(1).division(64) == (64,)


def test_before_anything_is_known_every_stage_gets_a_group():
    assert MicroBatches(3).division(8) == (3, 3, 2)


def test_where_rows_do_not_divide_a_group_more_may_keep_the_stages_busier():
    assert taught(2, 0.0, 0.01, 0.0).division(5) == (2, 2, 1)
    assert taught(2, 0.03, 0.01, 0.0).division(5) == (3, 2)


def test_groups_that_have_become_unequal_are_worth_mending():
    batches = taught(2, 0.0, 0.01, 0.0)
    assert batches.better([6, 2]) == (4, 4)
    assert batches.better([4]) == (2, 2)
    assert batches.better([4, 4]) is None
    assert batches.better([]) is None


def test_what_gains_little_is_not_worth_moving_rows():
    assert taught(2, 0.0, 0.01, 0.0).better([26, 24]) is None
    assert taught(2, 0.1, 0.0001, 0.0).better([6, 2]) is None
    assert MicroBatches(1).better([64]) is None


def test_before_it_is_known_how_time_grows_rows_are_moved_to_stages_without_work():
    batches = MicroBatches(2)
    assert batches.better([4]) == (2, 2)
    batches.observe(4, 0.01)
    assert batches.better([4]) == (2, 2)
    assert batches.better([2, 2]) is None
