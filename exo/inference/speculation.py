"""How long drafts are worth to be: pure, over what became of those before.

If each guessed token is right with probability a, a step that verifies k of them gives
(1 - a^(k+1)) / (1 - a) tokens on average (Leviathan et al. 2023, https://arxiv.org/abs/2211.17192,
equation 1). What the step takes for so many positions is measured, and so is a; the k with the most
tokens per second is taken, which is none where many streams keep the stages at work as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from exo.inference.drafts import Drafter
from exo.inference.engine import SequenceSpec
from exo.inference.micro_batches import MicroBatches

LONGEST = 15
# A draft must promise this much more tokens per second; of those that do nearly as well as the
# best, the shortest is taken, since what a step takes is known roughly only.
_WORTH, _NEARLY = 1.1, 0.97
# What is taken for the share of right guesses before anything is known, and its weight in guesses.
_FIRST, _WEIGHT = 0.7, 6.0
# How much of the past is left after a guess: of one sequence, of all.
_FADE, _FADE_ALL = 0.95, 0.995
# While drafts do not pay, a short one is tried after so many tokens, doubled each time.
_TRY, _PAUSE, _LONGEST_PAUSE = 2, 16, 512


@dataclass
class _Record:
    """Guesses of a sequence that were right, of how many, both fading; tokens since the last
    draft, and until the next one is tried."""

    right: float = 0.0
    tried: float = 0.0
    since: int = 0
    pause: int = _PAUSE


class Speculation:
    """Decides on the drafts of all sequences; without a drafter, on none. `guessed` and `accepted`
    count their tokens."""

    def __init__(self, drafter: Drafter | None, batches: MicroBatches) -> None:
        self._drafter = drafter
        self._batches = batches
        self._records: dict[int, _Record] = {}
        self._all = _Record(_FIRST * _WEIGHT, _WEIGHT)
        self.guessed = 0
        self.accepted = 0

    def length(self, sequences: Sequence[int], groups: int) -> int:
        """How many tokens to guess for each row of a micro-batch, one of so many."""
        if self._drafter is None:
            return 0
        records = [self._record(name) for name in sequences]
        shares = [self._share(record) for record in records]
        rates = [self._rate(shares, count, groups) for count in range(LONGEST + 1)]
        without, most = rates[0], max(rates)
        if most > without * _WORTH:
            return next(n for n, rate in enumerate(rates) if rate >= most * _NEARLY)
        if not any(record.since >= record.pause for record in records):
            return 0
        return _TRY if self._rate([1.0] * len(shares), _TRY, groups) > without * _WORTH else 0

    def drafts(
        self, rows: Sequence[tuple[SequenceSpec, Sequence[int]]], length: int
    ) -> tuple[tuple[int, ...], ...]:
        """Drafts of at most this length for rows of which all tokens are known; nothing if there
        are none. The last token that an answer may have is sampled, not guessed."""
        found: list[tuple[int, ...]] = []
        for spec, generated in rows:
            count = min(length, spec.max_tokens - len(generated) - 1)
            draft = (
                self._drafter.draft(spec, generated, count) if self._drafter and count > 0 else ()
            )
            if self._drafter and not draft:
                self._record(spec.sequence_id).since += 1
            found.append(draft)
        return tuple(found) if any(found) else ()

    def verified(self, sequence: int, guessed: int, accepted: int) -> None:
        """Take in how much of a draft was right. What comes after a wrong guess says nothing."""
        if not guessed:
            return
        record = self._record(sequence)
        self.guessed += guessed
        self.accepted += accepted
        for at in range(min(accepted + 1, guessed)):
            for each, fade in ((record, _FADE), (self._all, _FADE_ALL)):
                each.right = each.right * fade + (at < accepted)
                each.tried = each.tried * fade + 1
        record.pause = _PAUSE if accepted == guessed else min(2 * record.pause, _LONGEST_PAUSE)
        record.since = 0

    def forget(self, sequence: int) -> None:
        self._records.pop(sequence, None)
        if self._drafter:
            self._drafter.forget(sequence)

    def clear(self) -> None:
        """Forget all sequences."""
        self._records.clear()
        if self._drafter:
            self._drafter.clear()

    def _record(self, sequence: int) -> _Record:
        return self._records.setdefault(sequence, _Record())

    def _share(self, record: _Record) -> float:
        """Of a sequence's guesses the share that is right, near that of all until it is known."""
        usual = self._all.right / self._all.tried
        return (record.right + usual * _WEIGHT) / (record.tried + _WEIGHT)

    def _rate(self, shares: Sequence[float], count: int, groups: int) -> float:
        """Tokens per second of a micro-batch with drafts of this length."""
        rows = len(shares)
        seconds = self._batches.period(groups, rows * (1 + count))
        seconds += rows * count * (self._drafter.seconds if self._drafter else 0.0)
        return sum(expected(share, count) for share in shares) / seconds


def agreed(draft: Sequence[int], drawn: Sequence[int], ends: frozenset[int]) -> int:
    """How many tokens of a draft were drawn as well, up to the first that ends the answer."""
    for at, token in enumerate(draft):
        if drawn[at] != token or token in ends:
            return at
    return len(draft)


def expected(share: float, count: int) -> float:
    """Tokens that a step gives which verifies `count` guesses, each right with probability
    `share`."""
    if share >= 1:
        return count + 1.0
    return (1 - share ** (count + 1)) / (1 - share)
