import pytest

from exo.inference.pace import ChunkSize, MicroBatches


def test_alone_a_prompt_is_computed_in_the_largest_chunks():
    assert ChunkSize(2048).tokens(decoding=False) == 2048


@pytest.mark.parametrize(("fixed", "per_token"), [(0.0, 1e-4), (0.004, 1e-5), (0.0, 1e-6)])
def test_beside_answers_a_chunk_takes_about_as_long_as_a_decode_step(fixed, per_token):
    chunk = ChunkSize(2048)
    for _ in range(100):
        chunk.decoded(0.01)
        size = chunk.tokens(decoding=True)
        chunk.prefilled(size, fixed + per_token * size)
    took = fixed + per_token * chunk.tokens(decoding=True)
    assert took <= 0.02
    assert took >= 0.008 or chunk.tokens(decoding=True) == 2048


def test_a_chunk_never_becomes_so_small_that_a_prompt_takes_for_ever():
    chunk = ChunkSize(2048)
    for _ in range(100):
        chunk.decoded(0.001)
        chunk.prefilled(chunk.tokens(decoding=True), 1.0)
    assert chunk.tokens(decoding=True) >= 1


def test_what_is_left_of_a_prompt_says_nothing_about_a_chunk():
    chunk = ChunkSize(2048)
    chunk.decoded(0.01)
    before = chunk.tokens(decoding=True)
    chunk.prefilled(3, 5.0)
    assert chunk.tokens(decoding=True) == before


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
