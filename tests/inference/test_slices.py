"""A chunk of a prompt in parts of the layers: the same tokens and caches, bit for bit."""

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from exo.errors import RingError
from exo.inference.mlx.adapter import can_batch, states
from exo.inference.mlx.executor import Executor
from exo.inference.mlx.pipelines import Alone
from exo.inference.mlx.slices import filled, slices_of
from exo.inference.mlx.stage import WholeModel
from exo.inference.steps import (
    LAST_SAMPLED,
    Close,
    Continue,
    Decode,
    Join,
    Keep,
    Open,
    Prefill,
    Result,
    Step,
    Work,
)
from exo.inference.types import Sampling

from .architectures import build, configurations, random_weights

KNOWN = configurations()
# Nothing special; sliding windows; a recurrent state beside attention; some layers without a cache
# of their own; two caches in each layer; experts; several kinds of layers with and without a state;
# layers that are computed more than once; layers that evaluate what they are given.
OF_EACH_KIND = [
    "llama",
    "gemma3_text",
    "falcon_h1",
    "gemma3n",
    "deepseek_v32",
    "mixtral",
    "nemotron_h",
    "nanbeige",
    "dbrx",
]
CHUNKS = [33, 20, 16]
PROMPT = [(7 * n) % 40 + 1 for n in range(sum(CHUNKS) + 1)]
STREAM = [5, 6, 7]


@cache
def weights_of(name: str) -> list[tuple[str, mx.array]]:
    return random_weights(build(KNOWN[name]))


class Bench:
    """A model on an executor of its own, and the pipeline of a single stage."""

    def __init__(self, name: str = "llama") -> None:
        model = build(KNOWN[name], weights_of(name))
        self.stage = WholeModel(model)
        self.executor = Executor(self.stage, batchable=can_batch(model))
        self.pipeline = Alone(self.executor)
        self._number = 0

    def run(self, work: Work | None, *ops) -> list[int]:
        """Have a step computed; the tokens that were sampled."""
        return list(self._result(work, ops).tokens)

    def drawn(self, work: Work) -> tuple[list[int], list[float]]:
        """Have a step computed; the tokens that were sampled, and their log probabilities."""
        result = self._result(work)
        return list(result.tokens), [chosen.logprob for chosen in result.logprobs]

    def _result(self, work: Work | None, ops=()) -> Result:
        self.pipeline.submit(Step(number=self._number, ops=ops, work=work))
        self._number += 1
        (result,) = self.pipeline.collect()
        return result

    def caches(self, sequence: int) -> list[mx.array]:
        """A copy of what is in the caches of a sequence whose prompt is being computed."""
        state = tree_flatten(states(self.executor._sequences[sequence].caches))
        found = [value for _, value in state if isinstance(value, mx.array)]
        mx.eval(found)
        return [array + 0 for array in found]

    def stream(self) -> Iterator[int]:
        """The tokens of an answer to another prompt, one for each step."""
        self.run(Prefill(sequence=1, position=0, tokens=tuple(STREAM[:-1])), opening(1, STREAM))
        position, token = len(STREAM) - 1, STREAM[-1]
        ops = (Join(sequence=1, group=1),)
        while True:
            work = Decode(group=1, positions=(position,), tokens=(token,))
            yield self.run(work, *ops)[0]
            position, token, ops = position + 1, LAST_SAMPLED, ()


def opening(sequence: int, prompt: Sequence[int], **fields) -> Open:
    return Open(
        sequence=sequence,
        sampling=Sampling(temperature=0),
        prompt_tokens=len(prompt),
        **fields,
    )


def prompt_works(parts: int) -> Iterator[Work]:
    """The steps that compute the prompt."""
    position = 0
    for size in CHUNKS:
        tokens = tuple(PROMPT[position : position + size])
        yield Prefill(sequence=2, position=position, tokens=tokens, parts=parts)
        for part in range(1, parts):
            yield Continue(sequence=2, position=position, size=size, part=part, parts=parts)
        position += size


def answers(
    bench: Bench, parts: int, *, stream: bool
) -> tuple[list[int], list[int], list[mx.array]]:
    """The prompt's greedy answer, the tokens of a stream that has a step after each part of a
    chunk, and what was in the prompt's caches."""
    other = bench.stream() if stream else iter(())
    found: list[int] = []
    bench.run(None, opening(2, PROMPT))
    for work in prompt_works(parts):
        found += [next(other)] if stream else []
        bench.run(work)
    caches = bench.caches(2)
    ops, tokens = (Join(sequence=2, group=2),), [PROMPT[-1]]
    for at in range(12):
        work = Decode(group=2, positions=(len(PROMPT) - 1 + at,), tokens=(tokens[-1],))
        tokens += bench.run(work, *ops)
        ops = ()
    return tokens[1:], found, caches


def same(one: Sequence[mx.array], other: Sequence[mx.array]) -> bool:
    return all(
        a.shape == b.shape and mx.array_equal(a, b, equal_nan=True).item()
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("name", OF_EACH_KIND)
def test_in_parts_tokens_and_caches_are_those_of_whole_chunks(name):
    expected, _, caches = answers(Bench(name), 1, stream=False)
    most = slices_of(Bench(name).stage)
    for parts in {2, most}:
        tokens, _, found = answers(Bench(name), parts, stream=True)
        assert tokens == expected
        assert same(found, caches)


def test_a_stream_between_the_parts_has_the_tokens_that_it_has_alone():
    _, found, _ = answers(Bench(), 3, stream=True)
    stream = Bench().stream()
    assert found == [next(stream) for _ in found]


def test_each_part_computes_its_share_of_the_layers():
    bench = Bench("gemma3_text")
    layers = len(bench.stage.make_cache())
    assert slices_of(bench.stage) == layers - 1
    for parts in (1, 2, 3, layers - 1):
        ends = [len(filled(range(layers), part, parts)) for part in range(parts)]
        shares = [b - a for a, b in pairwise([1, *ends])]
        assert ends[-1] == layers
        assert max(shares) - min(shares) <= 1


def test_a_model_of_one_layer_has_one_slice():
    bench = Bench()
    bench.stage.make_cache = lambda: [object()]
    assert slices_of(bench.stage) == 1


def first_part(bench: Bench) -> Prefill:
    work = next(prompt_works(3))
    assert isinstance(work, Prefill)
    bench.run(work, opening(2, PROMPT))
    return work


@pytest.mark.parametrize("name", ["llama", "falcon_h1"])
def test_what_is_kept_between_two_parts_holds_the_whole_chunk(name):
    expected, _, caches = answers(Bench(name), 1, stream=False)
    bench = Bench(name)
    first_part(bench)
    bench.run(None, Keep(sequence=2, entry=7), Close(sequence=2))
    bench.run(None, opening(2, PROMPT, entry=7, length=CHUNKS[0]))
    _, *rest = prompt_works(1)
    for work in rest:
        bench.run(work)
    assert same(bench.caches(2), caches)
    work = Decode(group=2, positions=(len(PROMPT) - 1,), tokens=(PROMPT[-1],))
    assert bench.run(work, Join(sequence=2, group=2)) == expected[:1]
    # And the entry is still what it was.
    whole = Bench(name)
    whole.run(next(prompt_works(1)), opening(2, PROMPT))
    bench.run(None, opening(3, PROMPT, entry=7, length=CHUNKS[0]))
    assert same(bench.caches(3), whole.caches(2))


def test_a_prompt_that_is_closed_between_two_parts_leaves_others_alone():
    expected, _, _ = answers(Bench(), 1, stream=False)
    bench = Bench()
    bench.run(None, opening(9, PROMPT))
    bench.run(Prefill(sequence=9, position=0, tokens=tuple(PROMPT[:40]), parts=3))
    bench.run(None, Close(sequence=9))
    tokens, found, _ = answers(bench, 3, stream=True)
    assert tokens == expected
    stream = Bench().stream()
    assert found == [next(stream) for _ in found]


def test_what_is_left_of_a_chunk_can_be_computed_at_once():
    expected, _, caches = answers(Bench(), 1, stream=False)
    bench = Bench()
    work = first_part(bench)
    bench.run(Continue(sequence=2, position=0, size=work.size, part=2, parts=3))
    _, *rest = prompt_works(1)
    for each in rest:
        bench.run(each)
    assert same(bench.caches(2), caches)
    assert expected


@pytest.mark.parametrize(
    "work",
    [
        Continue(sequence=3, position=0, size=CHUNKS[0], part=1, parts=3),
        Continue(sequence=2, position=1, size=CHUNKS[0], part=1, parts=3),
        Continue(sequence=2, position=0, size=CHUNKS[0], part=0, parts=3),
        Continue(sequence=2, position=0, size=CHUNKS[0], part=3, parts=3),
        Continue(sequence=2, position=0, size=CHUNKS[0], part=1, parts=2),
        Prefill(sequence=2, position=CHUNKS[0], tokens=(1, 2)),
    ],
    ids=["no such sequence", "elsewhere", "done already", "beyond", "other parts", "next chunk"],
)
def test_a_part_that_is_not_due_ends_the_ring(work):
    bench = Bench()
    first_part(bench)
    with pytest.raises(RingError, match="not in step"):
        bench.run(work)


def test_a_prompt_whose_chunk_is_not_done_joins_no_group():
    bench = Bench()
    first_part(bench)
    with pytest.raises(RingError, match="not computed to its end"):
        bench.run(None, Join(sequence=2, group=1))


def test_after_the_last_part_nothing_is_left_to_continue():
    bench = Bench()
    work = first_part(bench)
    last = Continue(sequence=2, position=0, size=work.size, part=2, parts=3)
    bench.run(last)
    with pytest.raises(RingError, match="not in step"):
        bench.run(last)
