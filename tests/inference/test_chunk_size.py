"""How much of a prompt is computed at once, on machines that are simulated."""

import random
import statistics
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from exo.inference.chunk_size import ChunkSize
from exo.inference.course import Chunk


# What the simulated machines take, in seconds: a chunk of n tokens after c others takes
# (fixed + read·c) + (each + seen·c)·n, a decode step `decode`.
class Machine(NamedTuple):
    fixed: float
    read: float
    each: float
    seen: float
    decode: float

    def chunk(self, tokens: int, context: int) -> float:
        return self.fixed + self.read * context + (self.each + self.seen * context) * tokens

    def share(self, tokens: int, context: int) -> float:
        """What of a chunk's time goes into its tokens."""
        return 1 - self.chunk(0, context) / self.chunk(tokens, context)


# A chunk costs at least about what a decode step does, since it reads the same weights.
machines = st.builds(
    lambda decode, fixed, read, each, seen: Machine(
        decode * fixed, decode * read, decode * each, decode * seen, decode
    ),
    decode=st.floats(1e-3, 0.2),
    fixed=st.floats(0.3, 1.2),
    read=st.floats(0, 2e-4),
    each=st.floats(1e-3, 0.5),
    seen=st.floats(0, 5e-5),
)


def seeded(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311  a simulation's chance


class Done(NamedTuple):
    """A chunk that was computed, and the layers that the deepest of its parts had."""

    size: int
    context: int
    parts: int = 1
    deepest: int = 1


def computed(
    chunks: ChunkSize, machine: Machine, tokens: int, chance: random.Random, slices: int = 1
) -> list[Done]:
    """A prompt's chunks beside one stream. What each part takes varies by a tenth, and every now
    and then something else holds one up; as often for a chunk, however many parts it has."""
    found: list[Done] = []
    context = 0
    while context < tokens:
        chunks.decoded(machine.decode * chance.uniform(0.95, 1.05))
        size, parts = chunks.next(groups=1, context=context)
        size = min(size, tokens - context)
        depths = [slices * (at + 1) // parts - slices * at // parts for at in range(parts)]
        whole = machine.chunk(size, context)
        took = [whole * depth / slices * chance.uniform(0.95, 1.05) for depth in depths]
        if chance.random() < 0.02:
            took[-1] *= 4
        chunks.prefilled(chunk(size, context, max(took), parts))
        found.append(Done(size, context, parts, max(depths)))
        context += size
    return found


def chunk(size: int, context: int, slowest: float, parts: int = 1) -> Chunk:
    return Chunk(context, size, parts, planned=parts, slowest=slowest)


def seconds(machine: Machine, done: list[Done]) -> float:
    """What chunks took, and the steps of the stream between their parts."""
    return sum(machine.chunk(c.size, c.context) + c.parts * machine.decode for c in done)


def test_alone_a_prompt_is_computed_in_the_largest_chunks():
    assert ChunkSize(2048, slices=8).next(groups=0) == (2048, 1)


def test_what_is_not_known_yet_is_computed_in_as_many_parts_as_there_can_be():
    assert ChunkSize(2048, slices=8).next(groups=1).parts == 8


@settings(max_examples=40, deadline=None, derandomize=True)
@given(machines, st.integers(0, 2**32))
def test_beside_a_stream_chunks_keep_to_the_mark_or_to_their_tokens_share(
    machine: Machine, seed: int
):
    found = computed(ChunkSize(256), machine, 4000, seeded(seed))
    settled = found[20:-1]
    gaps = [
        (machine.decode + machine.chunk(each.size, each.context)) / machine.decode
        for each in settled
    ]
    # Those that are beyond the mark are no larger than their tokens' share asks for.
    beyond = [
        each
        for each, gap in zip(settled, gaps, strict=True)
        if gap > 3 and each.size > 2 and machine.share(each.size, each.context) > 0.55
    ]
    assert len(beyond) <= 0.02 * len(settled) + 1
    # Those that are small are so for the mark's sake.
    small = [
        each
        for each, gap in zip(settled, gaps, strict=True)
        if gap < 1.9 and each.size < 100 and machine.share(each.size, each.context) < 0.3
    ]
    assert len(small) <= 0.35 * len(settled) + 1


@settings(max_examples=40, deadline=None, derandomize=True)
@given(machines, st.integers(2, 40), st.integers(0, 2**32))
def test_in_parts_of_the_layers_gaps_keep_to_the_mark_and_a_prompt_ends_about_as_soon(
    machine: Machine, slices: int, seed: int
):
    found = computed(ChunkSize(256, slices=slices), machine, 4000, seeded(seed), slices)
    settled = found[20:-1]
    beyond = [
        each
        for each in settled
        if machine.chunk(each.size, each.context) * each.deepest / slices > 2 * machine.decode
        # As many parts as there can be: then the tokens get the least share, and no more.
        and (each.deepest > 1 or machine.share(each.size, each.context) > 0.55)
    ]
    assert len(beyond) <= 0.02 * len(settled) + 1
    whole = computed(ChunkSize(256), machine, 4000, seeded(seed))
    # Of the first chunk nothing is known yet.
    first = slices * machine.decode
    assert seconds(machine, found) <= 1.25 * seconds(machine, whole) + first


def test_where_a_single_token_is_beyond_the_mark_parts_are_not_and_make_a_prompt_faster():
    machine = Machine(fixed=0.0015, read=3e-7, each=1e-4, seen=1e-7, decode=0.002)
    parts = computed(ChunkSize(256, slices=5), machine, 8000, seeded(3), 5)
    whole = computed(ChunkSize(256), machine, 8000, seeded(3))
    last = parts[-30:]
    assert machine.chunk(1, 7000) > 2 * machine.decode
    assert all(machine.chunk(c.size, c.context) / c.parts < 2 * machine.decode for c in last)
    assert statistics.mean(c.size for c in last) > 3 * statistics.mean(c.size for c in whole[-30:])
    assert seconds(machine, parts) < 0.7 * seconds(machine, whole)


def test_what_is_cheap_is_not_computed_in_parts():
    machine = Machine(fixed=0.001, read=0, each=1e-5, seen=0, decode=0.02)
    found = computed(ChunkSize(256, slices=20), machine, 8000, seeded(4), 20)
    assert {each.parts for each in found[8:]} == {1}


def test_where_one_part_has_all_the_work_chunks_are_as_small_as_without_parts():
    machine = Machine(fixed=0.0015, read=0, each=1e-4, seen=0, decode=0.002)
    chunks = ChunkSize(256, slices=5)
    for _ in range(200):
        chunks.decoded(machine.decode)
        size, parts = chunks.next(groups=1)
        chunks.prefilled(chunk(size, 0, machine.chunk(size, 0), parts))
    largest = max(chunks.next(groups=1).tokens for _ in range(2))
    assert machine.chunk(largest, 0) <= 2 * machine.decode


def test_a_few_decode_steps_that_were_held_up_do_not_make_chunks_larger():
    machine = Machine(fixed=0.0015, read=0, each=1e-4, seen=0, decode=0.002)
    chunks = ChunkSize(256)
    computed(chunks, machine, 2000, seeded(5))
    before = [chunks.next(groups=1) for _ in range(4)]
    for _ in range(3):
        chunks.decoded(20 * machine.decode)
    after = [chunks.next(groups=1) for _ in range(4)]
    assert max(after)[0] <= 1.1 * max(before)[0]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(machines, st.integers(0, 2**32))
def test_a_prompt_does_not_take_for_ever(machine: Machine, seed: int):
    """Not more than some times as long as its tokens alone, and what chunks of two cost."""
    found = computed(ChunkSize(256), machine, 4000, seeded(seed))
    assert sum(each.size for each in found) / len(found) >= 1.5
    took = sum(machine.chunk(each.size, each.context) for each in found)
    tokens = took - sum(machine.chunk(0, each.context) for each in found)
    pairs = sum(machine.chunk(2, context) for context in range(0, 4000, 2))
    assert took <= max(4 * tokens, pairs)


def test_what_is_cheap_is_computed_in_large_chunks_at_once():
    machine = Machine(fixed=0.018, read=0, each=5e-5, seen=0, decode=0.02)
    sizes = [each.size for each in computed(ChunkSize(2048), machine, 8000, seeded(1))]
    assert max(sizes[:12]) > 150
    assert statistics.median(sizes[12:]) > 150


def test_a_prompt_after_a_longer_one_gets_larger_chunks_again():
    machine = Machine(fixed=0.0015, read=3e-7, each=1e-4, seen=1e-7, decode=0.002)
    chunks, chance = ChunkSize(256), seeded(2)
    long = computed(chunks, machine, 8000, chance)
    again = computed(chunks, machine, 1000, chance)
    assert statistics.mean(each.size for each in long[-50:]) < 4
    assert max(each.size for each in again if each.context < 400) >= 10


def test_where_a_chunk_costs_the_same_whatever_its_size_it_is_large():
    chunks = ChunkSize(2048)
    for _ in range(100):
        chunks.decoded(0.001)
        chunks.prefilled(chunk(chunks.next(groups=1).tokens, 0, 1.0))
    assert chunks.next(groups=1).tokens >= 1024


def test_slow_hops_and_groups_that_take_turns_leave_room_for_larger_chunks():
    def settled(stages: int, groups: int, hop: float = 0.0) -> int:
        chunks = ChunkSize(2048, stages)
        for _ in range(200):
            chunks.decoded(0.01)
            size = chunks.next(groups=groups, hop=hop).tokens
            chunks.prefilled(chunk(size, 0, 0.002 + 1e-4 * size))
        return max(chunks.next(groups=groups, hop=hop).tokens for _ in range(2))

    alone = settled(1, 1)
    assert settled(1, 4) > 3 * alone
    assert settled(3, 1, hop=0.02) > settled(3, 1) >= alone
    assert settled(3, 3) > 2 * alone


def test_what_a_stream_grows_by_beside_a_prompt_is_made_up_for_by_shorter_parts():
    machine = Machine(fixed=0.002, read=0, each=2e-4, seen=0, decode=0.002)
    chunks = ChunkSize(256, slices=6)
    computed(chunks, machine, 4000, seeded(4), 6)
    for _ in range(20):
        chunks.decoded(machine.decode)
    grown = 1.5 * machine.decode
    for _ in range(20):
        chunks.decoded(grown, beside=True)
    for _ in range(8):
        tokens, parts = chunks.next(groups=1)
        deepest = -(-6 // parts) / 6
        assert grown + machine.chunk(tokens, 0) * deepest < 3 * machine.decode
