"""Who computes next: admission by free slots and free KV memory, in the order of `FairQueue`.

Pure: it counts, the runner's service acts on it.
"""

from exo.errors import QueueFull, RequestError
from exo.inference.fair import FairQueue


class Scheduler:
    """Sequences wait in a bounded queue and run in a bounded set.

    A sequence reserves the KV memory of all the tokens it may ever hold, so that one that was
    admitted can always finish. The caches of a batch are one rectangle, as wide as its longest
    sequence, and it is the rectangle that has to fit. The head of the queue is not overtaken by
    what would fit sooner: a long request is not starved by short ones.
    """

    def __init__(self, slots: int, kv_tokens: int, max_queue: int) -> None:
        self.slots = slots
        self.kv_tokens = kv_tokens
        self.max_queue = max_queue
        self._queue: FairQueue[int] = FairQueue()
        self._waiting: dict[int, int] = {}
        self._running: dict[int, int] = {}

    @property
    def waiting(self) -> int:
        """Sequences in the queue."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Sequences being computed."""
        return len(self._running)

    @property
    def reserved(self) -> int:
        """Tokens of KV memory that the running set may come to hold."""
        return self.running * max(self._running.values(), default=0)

    def submit(self, sequences: dict[int, int], lane: str = "", *, batch: bool = False) -> None:
        """Queue the sequences of one request, each with the tokens it may hold: all or none.
        `lane` is the API key's.

        A key that has nothing in the queue finds room in it when others have filled it: a quarter
        more.

        Raises:
            QueueFull: there is no room in the queue.
            RequestError: one of them could never run.
        """
        needed = max(sequences.values())
        if needed > self.kv_tokens:
            raise RequestError(
                f"The request may need {needed} tokens of KV cache; this instance has memory for "
                f"{self.kv_tokens}.",
                hint="Ask for fewer max_tokens, or create the instance with more memory free.",
            )
        room = self.slots - self.running + self.max_queue
        if self.waiting and not self._queue.waiting(lane):
            room += self.max_queue // 4
        if self.waiting + len(sequences) > room:
            raise QueueFull(
                f"{self.waiting} sequences already wait for this model.",
                hint="Try again shortly.",
                retry_after=1,
            )
        self._waiting.update(sequences)
        for sequence_id, tokens in sequences.items():
            self._queue.push(sequence_id, tokens, lane, batch=batch)

    def admit(self) -> list[int]:
        """Move what fits from the queue to the running set; return it."""
        admitted: list[int] = []
        while self.running < self.slots and (sequence_id := self._queue.head()) is not None:
            tokens = self._waiting[sequence_id]
            widest = max(tokens, *self._running.values(), 0)
            if (self.running + 1) * widest > self.kv_tokens:
                break
            self._queue.pop()
            self._running[sequence_id] = self._waiting.pop(sequence_id)
            admitted.append(sequence_id)
        return admitted

    def release(self, sequence_id: int) -> bool:
        """Forget a sequence; true if it was running."""
        if self._waiting.pop(sequence_id, None) is not None:
            self._queue.remove(sequence_id)
        return self._running.pop(sequence_id, None) is not None
