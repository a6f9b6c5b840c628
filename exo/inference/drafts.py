"""Drafts: what may follow the tokens of a sequence, guessed at little cost.

A draft is verified in one step, whose cost grows little with the tokens in it; what is sampled is
what would have been sampled without, so a bad draft costs time and nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from exo.inference.engine import SequenceSpec

# So many last tokens must have come before for what came after them to be a guess. The longest
# match is the best; single tokens guess badly.
_LONGEST, _SHORTEST = 4, 2


class Drafter(Protocol):
    """Makes drafts."""

    @property
    def seconds(self) -> float:
        """What a token of a draft takes to be guessed."""
        ...

    def draft(self, spec: SequenceSpec, generated: Sequence[int], count: int) -> tuple[int, ...]:
        """At most `count` tokens that may follow the prompt and the `generated` ones; none if
        there is nothing to go by."""
        ...

    def forget(self, sequence_id: int) -> None:
        """Forget a sequence, of which nothing may be known."""
        ...

    def clear(self) -> None:
        """Forget all sequences."""
        ...


@dataclass
class _Seen:
    """The tokens of a sequence, and by their last tokens the places after them."""

    tokens: list[int]
    places: dict[tuple[int, ...], int] = field(default_factory=dict[tuple[int, ...], int])
    indexed: int = 0


class NgramDrafter:
    """Looks for the last tokens earlier in the prompt and the answer, and guesses what came after
    them there (prompt lookup decoding, https://github.com/apoorvumang/prompt-lookup-decoding)."""

    seconds = 0.0

    def __init__(self) -> None:
        self._seen: dict[int, _Seen] = {}

    def draft(self, spec: SequenceSpec, generated: Sequence[int], count: int) -> tuple[int, ...]:
        seen = self._seen.get(spec.sequence_id)
        if seen is None:
            seen = self._seen[spec.sequence_id] = _Seen(list(spec.prompt))
        tokens = seen.tokens
        tokens += generated[len(tokens) - len(spec.prompt) :]
        # The end itself is indexed later: it would be found as its own past.
        _index(seen, len(tokens) - 1)
        for size in range(_LONGEST, _SHORTEST - 1, -1):
            place = seen.places.get(tuple(tokens[-size:])) if len(tokens) >= size else None
            if place is not None:
                return _continued(tokens, place, count)
        return ()

    def forget(self, sequence_id: int) -> None:
        self._seen.pop(sequence_id, None)

    def clear(self) -> None:
        self._seen.clear()


def _index(seen: _Seen, end: int) -> None:
    """Note the places up to `end`; of what came more than once, the last."""
    for place in range(seen.indexed + 1, end + 1):
        for size in range(_SHORTEST, min(_LONGEST, place) + 1):
            seen.places[tuple(seen.tokens[place - size : place])] = place
    seen.indexed = max(seen.indexed, end)


def _continued(tokens: Sequence[int], place: int, count: int) -> tuple[int, ...]:
    """What came at a place; beyond the end, what is guessed there goes on."""
    found = list(tokens[place : place + count])
    period = len(tokens) - place
    while len(found) < count:
        found.append(found[-period])
    return tuple(found)
