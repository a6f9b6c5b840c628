"""Which token sequences have their keys and values kept, and which of them helps a prompt most.

Pure: it names entries and tells which are to be forgotten; the caches themselves lie on every rank
under the same names.
"""

from collections import OrderedDict
from collections.abc import Sequence

MAX_ENTRIES = 256


class PrefixIndex:
    """The entries of a prefix cache, least recently used first.

    `max_tokens` bounds their tokens in all. Entries can be cut to any shorter length if they are
    not longer than `cuttable` tokens; others (a sliding window that is full, a recurrent state)
    help only a prompt that begins with all of their tokens.
    """

    def __init__(self, max_tokens: int, cuttable: int) -> None:
        self._max_tokens = max_tokens
        self._cuttable = cuttable
        self._entries: OrderedDict[int, list[int]] = OrderedDict()
        self._tokens = 0
        self._next = 0

    def __len__(self) -> int:
        return len(self._entries)

    def match(self, prompt: Sequence[int]) -> tuple[int | None, int]:
        """The entry that shares most with the beginning of a prompt, and how many tokens of it are
        of use. The prompt's last token is never matched: its logits are still to be computed."""
        best: int | None = None
        length = 0
        wanted = list(prompt[:-1])
        for entry, tokens in self._entries.items():
            common = common_length(tokens, wanted)
            if common < len(tokens) and len(tokens) > self._cuttable:
                continue
            if common > length:
                best, length = entry, common
        if best is not None:
            self._entries.move_to_end(best)
        return best, length

    def reserve(self) -> int:
        """A name for a new entry, before its tokens are known."""
        self._next += 1
        return self._next

    def put(self, entry: int, tokens: Sequence[int]) -> list[int]:
        """Take in an entry; return those to be forgotten, which may be itself."""
        tokens = list(tokens)
        if not tokens or len(tokens) > self._max_tokens or self._is_covered(tokens):
            return [entry]
        covered = [
            name
            for name, known in self._entries.items()
            if len(known) <= len(tokens) <= self._cuttable and tokens[: len(known)] == known
        ]
        forgotten = [self._pop(name) for name in covered]
        self._entries[entry] = tokens
        self._tokens += len(tokens)
        while self._tokens > self._max_tokens or len(self._entries) > MAX_ENTRIES:
            forgotten.append(self._pop(next(iter(self._entries))))
        return forgotten

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._tokens = 0

    def _is_covered(self, tokens: list[int]) -> bool:
        """Whether another entry does for these tokens as well."""
        size = len(tokens)
        return any(
            known[:size] == tokens and (len(known) == size or len(known) <= self._cuttable)
            for known in self._entries.values()
        )

    def _pop(self, entry: int) -> int:
        self._tokens -= len(self._entries.pop(entry))
        return entry


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the longest common beginning, by halving: comparing slices is fast."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
