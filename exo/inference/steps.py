"""What rank 0 has every rank of an instance do, and what comes back from the last one.

Every rank carries out the same operations on its own caches, in the same order, and then the same
work; only layers and weights differ. A step with its tokens and operations is small; what is large
(the activations) travels beside it.
"""

from typing import Annotated, Literal, NamedTuple, TypeVar

import msgpack
from pydantic import Field, TypeAdapter, ValidationError

from exo.errors import RingError
from exo.inference.types import Sampling, Wire

T = TypeVar("T")

# In `Decode.tokens`: the token that was sampled last for the row, which only the last rank knows
# so far.
LAST_SAMPLED = -1


class Open(Wire):
    """Begin a sequence: answer `index` of a request. With `entry`, its caches start as a copy of
    the first `length` tokens of that entry of the prefix cache. `history` are the prompt's tokens,
    if the sampling depends on them; `prompt_tokens` is their number in any case. `grammar` is what
    the answer must follow, empty if nothing."""

    op: Literal["open"] = "open"
    sequence: int
    sampling: Sampling
    index: int = 0
    logprobs: int | None = None
    prompt_tokens: int
    history: tuple[int, ...] = ()
    grammar: str = ""
    entry: int | None = None
    length: int = 0


class Join(Wire):
    """Add a sequence, whose prompt is in its caches but for the last token, to a group as its last
    row. If it is a row of another group, it leaves that."""

    op: Literal["join"] = "join"
    sequence: int
    group: int


class Keep(Wire):
    """Keep a copy of a sequence's caches as an entry of the prefix cache."""

    op: Literal["keep"] = "keep"
    sequence: int
    entry: int


class Close(Wire):
    """Forget a sequence, wherever it is."""

    op: Literal["close"] = "close"
    sequence: int


class Forget(Wire):
    """Forget an entry of the prefix cache."""

    op: Literal["forget"] = "forget"
    entry: int


class Trim(Wire):
    """Take the last tokens out of the caches of sequences: `counts` says how many, by sequence.
    They were a draft's, and others were sampled."""

    op: Literal["trim"] = "trim"
    counts: dict[int, int]


class Prefill(Wire):
    """Compute a chunk of a prompt; `position` tokens are in the caches already. If it is to be
    computed in several `parts`, each through some of the layers, this is the first of them."""

    work: Literal["prefill"] = "prefill"
    sequence: int
    position: int
    tokens: tuple[int, ...]
    parts: int = 1

    @property
    def size(self) -> int:
        """Tokens of the chunk."""
        return len(self.tokens)

    @property
    def last(self) -> bool:
        """Whether the chunk is done with it."""
        return self.parts == 1


class Continue(Wire):
    """Compute what is left of a chunk of `size` tokens that began at `position`, up to the end of
    its part number `part`, from 0, of so many."""

    work: Literal["continue"] = "continue"
    sequence: int
    position: int
    size: int
    part: int
    parts: int

    @property
    def last(self) -> bool:
        """Whether the chunk is done with it."""
        return self.part == self.parts - 1


class Decode(Wire):
    """Compute one token of every row of a group and sample the next; by row, `positions` tokens
    are in the caches already. With `drafts`, by row the tokens that are guessed to follow, those
    are computed in the same pass, and one is sampled after each of them as well."""

    work: Literal["decode"] = "decode"
    group: int
    positions: tuple[int, ...]
    tokens: tuple[int, ...]
    drafts: tuple[tuple[int, ...], ...] = ()

    @property
    def sampled(self) -> int:
        """How many tokens the last rank samples."""
        return len(self.tokens) + sum(map(len, self.drafts))

    @property
    def computed(self) -> int:
        """How many positions are computed: shorter rows are filled up to the longest."""
        return len(self.tokens) * (1 + max(map(len, self.drafts), default=0))


Op = Annotated[Open | Join | Keep | Close | Forget | Trim, Field(discriminator="op")]
Work = Annotated[Prefill | Continue | Decode, Field(discriminator="work")]


class Step(Wire):
    """Operations on the caches, then work. Steps are numbered from 0 without a gap."""

    number: int
    ops: tuple[Op, ...] = ()
    work: Work | None = None


class Chosen(NamedTuple):
    """The natural-log probability of a sampled token, and of the likeliest ones beside it."""

    logprob: float
    top: tuple[tuple[int, float], ...] = ()


class Result(NamedTuple):
    """What the last rank sampled: by row, empty if nothing was to be. `seconds` is what each rank
    computed for, in the order of the ranks. `failed` are the sequences whose grammar could not be
    followed any further, and why: what was sampled for them is of no use.

    A tuple, which is packed as it is: everyone waits while that is done."""

    number: int
    tokens: tuple[int, ...] = ()
    logprobs: tuple[Chosen | None, ...] = ()
    seconds: tuple[float, ...] = ()
    failed: tuple[tuple[int, str], ...] = ()


_step: TypeAdapter[Step] = TypeAdapter(Step)
_result: TypeAdapter[Result] = TypeAdapter(Result)
# Kept, since each allocates a large buffer. Steps and results are the main thread's.
_packer = msgpack.Packer()


def pack(message: Step | Result) -> bytes:
    """A step or result as bytes."""
    plain = message if isinstance(message, Result) else message.model_dump(mode="python")
    packed: bytes = _packer.pack(plain)
    return packed


def unpack_step(body: bytes) -> Step:
    """The step of these bytes.

    Raises:
        RingError: they are none.
    """
    return _unpack(_step, body)


def unpack_result(body: bytes) -> Result:
    """The result of these bytes.

    Raises:
        RingError: they are none.
    """
    return _unpack(_result, body)


def _unpack(adapter: TypeAdapter[T], body: bytes) -> T:
    try:
        return adapter.validate_python(msgpack.unpackb(body, strict_map_key=False))
    except (ValueError, TypeError, msgpack.UnpackException, ValidationError) as error:
        raise RingError("A neighbour in the ring sent a step that cannot be read.") from error
