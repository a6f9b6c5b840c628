"""An engine without a model: it answers with the words of the last message, over and over."""

import os
import signal
import struct
from collections import deque
from collections.abc import Sequence

from exo.errors import ModelInvalid, RequestError
from exo.inference.engine import (
    Detokenizer,
    EmbedSpec,
    OnProgress,
    Prepared,
    Sampled,
    SequenceSpec,
    Vector,
)
from exo.inference.messages import Load
from exo.inference.types import EmbedRequest, FinishReason, GenerateRequest

END = 0
LAYERS = 4
MEMORY = 1000


class Words(Detokenizer):
    """Each token is a word and a space; the text is known at once."""

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self._vocabulary = vocabulary
        self._segment = ""

    @property
    def last_segment(self) -> str:
        segment, self._segment = self._segment, ""
        return segment

    def add_token(self, token: int) -> None:
        self._segment += self._vocabulary[token] + " "

    def finalize(self) -> None:
        pass


class FakeEmbedder:
    """The vector of a text is its length; one text is computed in a step."""

    def __init__(self) -> None:
        self.left: deque[tuple[EmbedSpec, int]] = deque()
        self.refusal: RequestError | None = None

    def room(self, texts: Sequence[Sequence[int]]) -> int:
        return max(map(len, texts))

    def add(self, spec: EmbedSpec) -> None:
        if self.refusal:
            raise self.refusal
        self.left.extend((spec, number) for number in range(len(spec.texts)))

    def remove(self, sequence_id: int) -> None:
        self.left = deque(each for each in self.left if each[0].sequence_id != sequence_id)

    @property
    def waiting(self) -> bool:
        return not self.left

    def step(self) -> list[Vector]:
        if not self.left:
            return []
        spec, number = self.left.popleft()
        length = struct.pack("<f", len(spec.texts[number]))
        return [Vector(spec.sequence_id, number, length, last=number == len(spec.texts) - 1)]


class FakeEngine:
    """Deterministic: the answer to "a b c" is "a b c a b c …", up to max_tokens; the word `end`
    ends it, `astray` ends it as a grammar that fails. `crash` kills the process, `stall` stops it
    from computing for good, `fail` makes the step raise, `refuse` is refused."""

    def __init__(self) -> None:
        self.vocabulary: list[str] = ["<end>"]
        self.sequences: dict[int, tuple[SequenceSpec, int]] = {}
        self.loaded: Load | None = None
        self.added: list[int] = []
        self.removed: list[int] = []
        self.embedder: FakeEmbedder | None = FakeEmbedder()

    def load(self, load: Load, progress: OnProgress) -> int:
        if "invalid" in load.path.name:
            raise ModelInvalid(f"The model at {load.path} is invalid.")
        for done in range(LAYERS + 1):
            progress(done, LAYERS)
        self.loaded = load
        return MEMORY

    def warm_up(self) -> None:
        pass

    def prepare(self, request: GenerateRequest) -> Prepared:
        said = request.prompt if not request.messages else request.messages[-1]["content"]
        words = str(said).split()
        if "refuse" in words:
            raise RequestError("The template refuses these messages.", param="messages")
        return Prepared([self._token(word) for word in words])

    def prepare_texts(self, request: EmbedRequest) -> Prepared:
        return Prepared(texts=[self._words(each) for each in request.inputs])

    def _words(self, text: str | list[int]) -> list[int]:
        return [self._token(w) for w in text.split()] if isinstance(text, str) else text

    def detokenizer(self) -> Detokenizer:
        return Words(self.vocabulary)

    def token_text(self, token: int) -> tuple[str, bytes]:
        text = self.vocabulary[token] + " "
        return text, text.encode()

    def add(self, sequences: Sequence[SequenceSpec]) -> None:
        for spec in sequences:
            self.sequences[spec.sequence_id] = (spec, 0)
            self.added.append(spec.sequence_id)

    def remove(self, sequence_ids: Sequence[int]) -> None:
        for sequence_id in sequence_ids:
            self.sequences.pop(sequence_id, None)
            self.removed.append(sequence_id)

    def step(self) -> list[Sampled]:
        return [self._sample(sequence_id) for sequence_id in list(self.sequences)]

    @property
    def waiting(self) -> bool:
        return not self.sequences and (self.embedder is None or self.embedder.waiting)

    @property
    def draft_stats(self) -> None:
        return None

    def peak_memory(self) -> int:
        return MEMORY

    def _sample(self, sequence_id: int) -> Sampled:
        spec, position = self.sequences[sequence_id]
        token = spec.prompt[position % len(spec.prompt)]
        word = self.vocabulary[token]
        if word == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        if word == "stall":
            signal.pause()
        if word == "astray":
            del self.sequences[sequence_id]
            return Sampled(sequence_id, -1, failure="it went astray")
        if word == "fail":
            raise RuntimeError("[step] The fake was told to fail.")
        reason = None
        if word == "end":
            token, reason = END, FinishReason.STOP
        elif position + 1 == spec.max_tokens:
            reason = FinishReason.LENGTH
        if reason:
            del self.sequences[sequence_id]
        else:
            self.sequences[sequence_id] = (spec, position + 1)
        top = [(token, -0.5)] * (spec.logprobs or 0)
        logprob = None if spec.logprobs is None else -0.5
        return Sampled(sequence_id, token, reason, logprob, top)

    def _token(self, word: str) -> int:
        if word not in self.vocabulary:
            self.vocabulary.append(word)
        return self.vocabulary.index(word)
