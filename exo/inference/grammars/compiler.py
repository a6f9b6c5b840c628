"""Grammars made ready for one vocabulary, beside the thread that computes."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTime
from dataclasses import dataclass, field
from typing import TypeVar

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from exo.errors import RequestError, Unavailable
from exo.inference.grammars.constraint import Constraint

T = TypeVar("T")

# A grammar that takes longer is refused; what compiles it cannot be stopped.
COMPILE_SECONDS = 5.0
_STUCK = 2
_KEPT = 64
# Bound what one token may cost, and keep grammars out of error messages, which may be logged.
_LIMITS = LLParserLimits(
    initial_lexer_fuel=2_000_000, step_lexer_fuel=200_000, verbose_errors=False
)


@dataclass(frozen=True)
class Vocabulary:
    """What grammars are compiled for: the tokens, those that end an answer, and those that no
    text in a grammar spells, by their names."""

    tokenizer: LLTokenizer
    ends: frozenset[int]
    specials: dict[str, int] = field(default_factory=dict[str, int])


class Grammars:
    """Compiled grammars, the last ones used. Any thread."""

    def __init__(self, vocabulary: Callable[[], Vocabulary]) -> None:
        """`vocabulary` is called once, in a thread of its own, when it is first needed.

        It may raise RequestError: this vocabulary cannot be constrained.
        """
        self._make = vocabulary
        self._vocabulary: Future[Vocabulary] | None = None
        self._compiled: OrderedDict[str, Future[LLMatcher]] = OrderedDict()
        self._running = 0
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """Begin to make the vocabulary ready."""
        with self._lock:
            if self._vocabulary is None:
                self._vocabulary = _in_thread(self._make)

    def check(self, grammar: str, param: str) -> None:
        """Compile a grammar and keep it.

        Raises:
            RequestError: it is none, or too large; it names `param`.
            Unavailable: others take all the time that there is for this.
        """
        vocabulary = self._ready()
        try:
            found = self._begin(grammar, vocabulary, most=_STUCK).result(COMPILE_SECONDS)
        except NotInTime as error:
            raise RequestError(
                "This grammar takes too long to be made ready.",
                hint="Simplify it: large counts and long alternatives are what costs.",
                param=param,
            ) from error
        if found.is_error():
            raise RequestError(f"This grammar cannot be used: {_reason(found)}", param=param)

    @property
    def specials(self) -> dict[str, int]:
        """The vocabulary's tokens that no text spells; waits until they are known."""
        return self._ready().specials

    def open(self, grammar: str) -> Constraint:
        """Where a new answer is: at the beginning. One that was not checked here is compiled
        meanwhile."""
        vocabulary = self._ready()
        return Constraint(self._begin(grammar, vocabulary), vocabulary.ends)

    def _ready(self) -> Vocabulary:
        self.prepare()
        assert self._vocabulary is not None  # noqa: S101  prepare has made it
        return self._vocabulary.result()

    def _begin(
        self, grammar: str, vocabulary: Vocabulary, most: int | None = None
    ) -> Future[LLMatcher]:
        with self._lock:
            found = self._compiled.get(grammar)
            if found is not None:
                self._compiled.move_to_end(grammar)
                return found
            if most is not None and self._running >= most:
                raise Unavailable(
                    "Other grammars are being made ready, and take long.", retry_after=5
                )
            self._running += 1
            begun = _in_thread(lambda: self._compile(grammar, vocabulary))
            self._compiled[grammar] = begun
            while len(self._compiled) > _KEPT:
                self._compiled.popitem(last=False)
            return begun

    def _compile(self, grammar: str, vocabulary: Vocabulary) -> LLMatcher:
        try:
            matcher = LLMatcher(vocabulary.tokenizer, grammar, log_level=0, limits=_LIMITS)
            if not matcher.is_error():
                # The first mask shows whether anything can be said at all.
                matcher.compute_bitmask()
            return matcher
        finally:
            with self._lock:
                self._running -= 1


def _reason(matcher: LLMatcher) -> str:
    lines = matcher.get_error().strip().splitlines()
    text = "; ".join(line.strip() for line in lines if line.strip())[:500]
    if "NoExtension" in text:
        text = "nothing can be said in it"
    return text if text.endswith(".") else f"{text}."


def _in_thread(work: Callable[[], T]) -> Future[T]:
    """Do something in a thread that nobody waits for at the end of the process."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001  it is raised where the result is asked for
            future.set_exception(error)

    threading.Thread(target=run, name="grammar", daemon=True).start()
    return future
