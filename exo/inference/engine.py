"""What an engine is: the one that computes tokens, behind the runner's scheduler.

Everything but `prepare` is called from the process's main thread only, since MLX's streams belong
to a thread.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from exo.inference.messages import DraftStats, Load, RingStats
from exo.inference.ring.events import Ring
from exo.inference.ring.frames import Frame
from exo.inference.ring.gathering import Address
from exo.inference.speech.speech import PLAIN, Speech
from exo.inference.types import EmbedRequest, FinishReason, GenerateRequest, Sampling

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class SequenceSpec:
    """One sequence to compute: answer `index` of a request."""

    sequence_id: int
    prompt: Sequence[int]
    max_tokens: int
    sampling: Sampling
    index: int = 0
    logprobs: int | None = None
    use_prefix_cache: bool = True
    grammar: str = ""


@dataclass(frozen=True)
class Prepared:
    """A request as the engine computes it: the prompt's tokens, the grammar that its answers
    follow, empty if none, and how their text is to be read. `text` is the prompt's, of a dry
    request only; `texts` are the inputs of a request for vectors, as tokens."""

    prompt: Sequence[int] = ()
    grammar: str = ""
    speech: Speech = PLAIN
    text: str = ""
    texts: Sequence[Sequence[int]] = ()


@dataclass(frozen=True)
class EmbedSpec:
    """Texts, each as tokens, that vectors are wanted of, with so many dimensions."""

    sequence_id: int
    texts: Sequence[Sequence[int]]
    dimensions: int | None = None


@dataclass(frozen=True)
class Vector:
    """The vector of text `index`, as `Embedded` has it. `last`: all texts have theirs now."""

    sequence_id: int
    index: int
    vector: bytes
    last: bool


@dataclass(frozen=True)
class Sampled:
    """One sampled token. When `finish_reason` is STOP it is an end-of-text token, not text.

    `top` are the likeliest (token, log probability) pairs, as many as were asked for;
    `cached_tokens` is how many of the prompt's tokens were in the prefix cache. `seconds` is how
    long each stage computed the step of number `step`, which it comes from, and `prompt_seconds`,
    with a sequence's first token, the steps of its prompt before that. With a `failure` there is
    no token: the sequence has ended, since its grammar could not be followed.
    """

    sequence_id: int
    token: int
    finish_reason: FinishReason | None = None
    logprob: float | None = None
    top: Sequence[tuple[int, float]] = field(default=())
    cached_tokens: int = 0
    failure: str | None = None
    step: int = 0
    seconds: tuple[float, ...] = ()
    prompt_seconds: tuple[float, ...] = ()


# Makes every rank compute a chunk of a prompt and two tokens. No sequence of a request has its id.
WARM_UP = SequenceSpec(
    sequence_id=-1,
    prompt=(0, 0, 0, 0),
    max_tokens=2,
    sampling=Sampling(temperature=0),
    use_prefix_cache=False,
)


class Detokenizer(Protocol):
    """Turns tokens to text as they come; `last_segment` is what is new and complete."""

    @property
    def last_segment(self) -> str: ...
    def add_token(self, token: int) -> None: ...
    def finalize(self) -> None: ...


class Embedder(Protocol):
    """Computes vectors of texts, a piece at a time."""

    def room(self, texts: Sequence[Sequence[int]]) -> int:
        """How many tokens of keys and values these texts need at once."""
        ...

    def add(self, spec: EmbedSpec) -> None:
        """Begin to compute.

        Raises:
            RequestError: this model gives no vectors.
        """
        ...

    def remove(self, sequence_id: int) -> None: ...

    def step(self) -> list[Vector]:
        """Compute one piece: so many tokens as a chunk of a prompt has, of all texts together."""
        ...

    @property
    def waiting(self) -> bool:
        """Whether there is nothing to compute."""
        ...


class Engine(Protocol):
    """Computes sequences together, one step at a time."""

    def load(self, load: Load, progress: OnProgress) -> int:
        """Load the shard; return the bytes it takes. Progress is (layers loaded, of how many).

        Raises:
            ModelInvalid: the files are not a model this engine can compute.
        """
        ...

    def warm_up(self) -> None:
        """Compute once, so that the first request does not pay for what comes once."""
        ...

    def prepare(self, request: GenerateRequest) -> Prepared:
        """The prompt's tokens, by the model's chat template, the grammar, and how this model marks
        thoughts and calls. Any thread.

        Raises:
            RequestError: the template refuses the messages, the grammar is none, or the model can
                not do what is asked.
        """
        ...

    def prepare_texts(self, request: EmbedRequest) -> Prepared:
        """The tokens of what vectors are wanted of. Any thread.

        Raises:
            RequestError: the model cannot do what is asked.
        """
        ...

    @property
    def embedder(self) -> Embedder | None:
        """What makes vectors; None where this is one rank of several."""
        ...

    def detokenizer(self) -> Detokenizer: ...

    def token_text(self, token: int) -> tuple[str, bytes]:
        """A token alone, as text and as the bytes it stands for."""
        ...

    def add(self, sequences: Sequence[SequenceSpec]) -> None:
        """Begin to compute."""
        ...

    def remove(self, sequence_ids: Sequence[int]) -> None:
        """Forget sequences; those that have ended in the meantime are forgotten already."""
        ...

    def step(self) -> list[Sampled]:
        """Compute one step: one token of every decoding sequence, one chunk of prefill."""
        ...

    @property
    def waiting(self) -> bool:
        """Whether a step would do nothing before something is added, or comes over the ring."""
        ...

    @property
    def draft_stats(self) -> DraftStats | None:
        """What became of drafts; None where none are asked for, or on a rank that makes none."""
        ...

    def peak_memory(self) -> int:
        """Bytes at most in use since the last call."""
        ...


class RingEngine(Engine, Protocol):
    """An engine that can be one rank of several. Rank 0 is stepped, the others get frames."""

    def facts(self, load: Load) -> dict[str, str]:
        """What all ranks must have in common, before anything is loaded.

        Raises:
            ModelInvalid: the files are no model, or its layers cannot be cut there.
        """
        ...

    def join(self, load: Load, addresses: Sequence[Address]) -> None:
        """Form a group of `mx.distributed` with the other ranks, before `load`: once in the life
        of a process. `addresses` are those of all ranks. It may never return.

        Raises:
            RingError: it cannot be formed.
        """
        ...

    def start(self, ring: Ring, life: int) -> None:
        """Begin to compute over a ring that stands, with empty caches."""
        ...

    def stop(self) -> None:
        """The ring is gone: forget all sequences."""
        ...

    def stats(self) -> RingStats:
        """How the ring has worked since this was last asked. Rank 0 only."""
        ...

    def foresee(self) -> None:
        """Nothing has come and nothing is to be done: make ready what is likely to come next."""
        ...

    def receive(self, frame: Frame) -> None:
        """Take in what came from the rank before; a rank that is not 0 computes and sends on.

        Raises:
            RingError: it makes no sense here, or the ring broke meanwhile.
        """
        ...
