"""Where one answer is in its grammar."""

from concurrent.futures import Future

from llguidance import LLMatcher


class Constraint:
    """Follows the tokens of one answer, drafted ones too, and says what may come next.

    A draft may hold what the grammar does not allow: from there on nothing is known, and nothing
    needs to be, since what follows a wrong guess is thrown away.
    """

    def __init__(self, compiled: Future[LLMatcher], ends: frozenset[int]) -> None:
        self._compiled = compiled
        self._ends = ends
        self._matcher: LLMatcher | None = None
        # Tokens at the end that the matcher has not taken in.
        self._beyond = 0
        self.failure: str | None = None

    def push(self, token: int, *, drafted: bool = False) -> None:
        """Take in the answer's next token."""
        matcher = self._own()
        if self._beyond or self.failure or token in self._ends:
            self._beyond += 1
        elif not matcher.try_consume_tokens([token]):
            self._beyond += 1
            if matcher.is_error() or not drafted:
                self._fail(matcher)

    def mask(self) -> bytes | None:
        """A bit for every token, the lowest first in each byte: whether it may come next. None if
        any may, since nobody will look at what does."""
        matcher = self._own()
        if self._beyond or self.failure:
            return None
        mask = matcher.compute_bitmask()
        # A comparison ends at the first byte that differs: it hardly ever looks at the whole mask.
        if matcher.is_error() or mask == bytes(len(mask)):
            self._fail(matcher)
            return None
        return mask

    def cut(self, count: int) -> None:
        """Take back the last `count` tokens."""
        beyond = min(count, self._beyond)
        self._beyond -= beyond
        if count > beyond and not self.failure and not self._own().rollback(count - beyond):
            self._fail(self._own())

    def _own(self) -> LLMatcher:
        if self._matcher is None:
            # What another answer may begin with as well stays as it is.
            self._matcher = self._compiled.result().deep_copy()
        return self._matcher

    def _fail(self, matcher: LLMatcher) -> None:
        reason = matcher.get_error().strip().splitlines()
        self.failure = reason[0] if reason else "it does not go on from here"
