"""How much of a prompt is computed at once, on machines that are simulated."""

import random
import statistics
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from exo.inference.chunk_size import ChunkSize


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


def computed(
    chunk: ChunkSize, machine: Machine, tokens: int, chance: random.Random
) -> list[tuple[int, int]]:
    """The sizes of a prompt's chunks beside one stream, each with the tokens before it. What they
    take varies by a tenth, and every now and then something else holds one up."""
    found: list[tuple[int, int]] = []
    context = 0
    while context < tokens:
        chunk.decoded(machine.decode * chance.uniform(0.95, 1.05))
        size = min(chunk.tokens(groups=1, context=context), tokens - context)
        held_up = 4 if chance.random() < 0.02 else 1
        took = machine.chunk(size, context) * chance.uniform(0.95, 1.05) * held_up
        chunk.prefilled(size, context, took)
        found.append((size, context))
        context += size
    return found


def test_alone_a_prompt_is_computed_in_the_largest_chunks():
    assert ChunkSize(2048).tokens(groups=0) == 2048


@settings(max_examples=40, deadline=None, derandomize=True)
@given(machines, st.integers(0, 2**32))
def test_beside_a_stream_chunks_keep_to_the_mark_or_to_their_tokens_share(
    machine: Machine, seed: int
):
    found = computed(ChunkSize(256), machine, 4000, seeded(seed))
    settled = found[20:-1]
    gaps = [(machine.decode + machine.chunk(*each)) / machine.decode for each in settled]
    # Those that are beyond the mark are no larger than their tokens' share asks for.
    beyond = [
        each
        for each, gap in zip(settled, gaps, strict=True)
        if gap > 3 and each[0] > 2 and machine.share(*each) > 0.55
    ]
    assert len(beyond) <= 0.02 * len(settled) + 1
    # Those that are small are so for the mark's sake.
    small = [
        each
        for each, gap in zip(settled, gaps, strict=True)
        if gap < 1.9 and each[0] < 100 and machine.share(*each) < 0.3
    ]
    assert len(small) <= 0.35 * len(settled) + 1


@settings(max_examples=40, deadline=None, derandomize=True)
@given(machines, st.integers(0, 2**32))
def test_a_prompt_does_not_take_for_ever(machine: Machine, seed: int):
    """Not more than some times as long as its tokens alone, and what chunks of two cost."""
    found = computed(ChunkSize(256), machine, 4000, seeded(seed))
    assert sum(size for size, _ in found) / len(found) >= 1.5
    took = sum(machine.chunk(*each) for each in found)
    tokens = sum(machine.chunk(*each) - machine.chunk(0, each[1]) for each in found)
    pairs = sum(machine.chunk(2, context) for context in range(0, 4000, 2))
    assert took <= max(4 * tokens, pairs)


def test_what_is_cheap_is_computed_in_large_chunks_at_once():
    machine = Machine(fixed=0.018, read=0, each=5e-5, seen=0, decode=0.02)
    sizes = [size for size, _ in computed(ChunkSize(2048), machine, 8000, seeded(1))]
    assert max(sizes[:12]) > 200
    assert statistics.median(sizes[12:]) > 200


def test_a_prompt_after_a_longer_one_gets_larger_chunks_again():
    machine = Machine(fixed=0.0015, read=3e-7, each=1e-4, seen=1e-7, decode=0.002)
    chunk, chance = ChunkSize(256), seeded(2)
    long = computed(chunk, machine, 8000, chance)
    again = computed(chunk, machine, 1000, chance)
    assert statistics.mean(size for size, _ in long[-50:]) < 4
    assert max(size for size, at in again if at < 400) >= 10


def test_where_a_chunk_costs_the_same_whatever_its_size_it_is_large():
    chunk = ChunkSize(2048)
    for _ in range(100):
        chunk.decoded(0.001)
        chunk.prefilled(chunk.tokens(groups=1), 0, 1.0)
    assert chunk.tokens(groups=1) >= 1024


def test_slow_hops_and_groups_that_take_turns_leave_room_for_larger_chunks():
    def settled(stages: int, groups: int, hop: float = 0.0) -> int:
        chunk = ChunkSize(2048, stages)
        for _ in range(200):
            chunk.decoded(0.01)
            size = chunk.tokens(groups=groups, hop=hop)
            chunk.prefilled(size, 0, 0.002 + 1e-4 * size)
        return max(chunk.tokens(groups=groups, hop=hop) for _ in range(2))

    alone = settled(1, 1)
    assert settled(1, 4) > 3 * alone
    assert settled(3, 1, hop=0.02) > settled(3, 1) >= alone
    assert settled(3, 3) > 2 * alone
