import sys

from hypothesis import given
from hypothesis import strategies as st

from exo.inference.prefix_index import MAX_ENTRIES, PrefixIndex

TOKENS = st.lists(st.integers(0, 2), min_size=1, max_size=8)


def put(index: PrefixIndex, tokens: list[int]) -> tuple[int, list[int]]:
    entry = index.reserve()
    return entry, index.put(entry, tokens)


def test_the_longest_common_beginning_is_found():
    index = PrefixIndex(100, sys.maxsize)
    put(index, [1, 2, 3])
    entry, _ = put(index, [1, 2, 4, 5])
    assert index.match([1, 2, 4, 6, 7]) == (entry, 3)
    assert index.match([9, 9]) == (None, 0)


def test_the_last_token_of_a_prompt_is_always_computed():
    index = PrefixIndex(100, sys.maxsize)
    entry, _ = put(index, [1, 2, 3])
    assert index.match([1, 2, 3]) == (entry, 2)
    assert index.match([1]) == (None, 0)


def test_what_cannot_be_cut_helps_only_prompts_that_begin_with_all_of_it():
    index = PrefixIndex(100, cuttable=0)
    entry, _ = put(index, [1, 2, 3])
    assert index.match([1, 2, 9]) == (None, 0)
    assert index.match([1, 2, 3, 4]) == (entry, 3)


def test_a_longer_entry_takes_the_place_of_its_beginnings():
    index = PrefixIndex(100, sys.maxsize)
    short, _ = put(index, [1, 2])
    _, forgotten = put(index, [1, 2, 3])
    assert forgotten == [short]
    again, forgotten = put(index, [1, 2])
    assert forgotten == [again]


def test_entries_that_cannot_be_cut_stand_beside_their_beginnings():
    index = PrefixIndex(100, cuttable=0)
    put(index, [1, 2])
    _, forgotten = put(index, [1, 2, 3])
    assert forgotten == []
    assert index.match([1, 2, 9])[1] == 2


def test_the_least_recently_used_goes_first_and_what_is_too_large_never_comes():
    index = PrefixIndex(6, sys.maxsize)
    first, _ = put(index, [1, 1, 1])
    second, _ = put(index, [2, 2, 2])
    index.match([1, 1, 1, 1])
    assert put(index, [3])[1] == [second]
    huge, forgotten = put(index, [4] * 7)
    assert forgotten == [huge]
    assert index.match([1, 1, 1, 1])[0] == first


@given(st.lists(TOKENS), TOKENS, st.sampled_from([0, 3, sys.maxsize]), st.integers(1, 40))
def test_it_is_bounded_and_what_it_matches_is_there(entries, prompt, cuttable, room):
    index = PrefixIndex(room, cuttable)
    held: dict[int, list[int]] = {}
    for tokens in entries:
        entry, forgotten = put(index, tokens)
        held[entry] = tokens
        for gone in forgotten:
            del held[gone]
    assert len(index) == len(held) <= MAX_ENTRIES
    assert sum(map(len, held.values())) <= room
    entry, length = index.match(prompt)
    usable = [
        _common(tokens, prompt[:-1])
        for tokens in held.values()
        if len(tokens) <= cuttable or prompt[:-1][: len(tokens)] == tokens
    ]
    assert length == max(usable, default=0)
    if entry is not None:
        assert held[entry][:length] == prompt[:length]


def _common(one: list[int], other: list[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
                min(len(one), len(other)))  # fmt: skip
