"""What one backend does with one model: runs that are short where the backend is slow."""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable

BATCHES = (1, 4, 8)
PROMPTS = (128, 512, 2048)
# Seconds that one figure may take. A prompt that would take longer is measured by its beginning.
PATIENCE = float(os.environ.get("BENCHMARK_PATIENCE", "20"))
STEPS = 24


def tokens_per_second(prefill: Callable[[int], None], size: int, rate: float) -> tuple[float, int]:
    """Of a prompt of `size` tokens, or of as many as are due in time at `rate`; and how many."""
    size = max(1, min(size, int(rate * PATIENCE / 3)))
    seconds: list[float] = []
    for _ in range(3):
        start = time.perf_counter()
        prefill(size)
        seconds.append(time.perf_counter() - start)
        if sum(seconds) > PATIENCE:
            break
    return size / statistics.median(seconds), size


def steps_per_second(step: Callable[[], None]) -> float:
    """The median of some steps, as many as there is patience for."""
    step()
    seconds: list[float] = []
    while len(seconds) < STEPS and sum(seconds) < PATIENCE / 2:
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return 1 / statistics.median(seconds)


def report(
    prefill: Callable[[int], None], decoder: Callable[[int], Callable[[], None]] | None
) -> None:
    """Print one line of JSON: tokens/s by batch and by prompt."""
    start = time.perf_counter()
    prefill(4)
    rate = 4 / (time.perf_counter() - start)
    result: dict[str, dict[str, float]] = {"prefill": {}, "decode": {}, "tokens": {}}
    for size in PROMPTS:
        rate, done = tokens_per_second(prefill, size, rate)
        result["prefill"][str(size)], result["tokens"][str(size)] = rate, done
    for batch in BATCHES if decoder else ():
        result["decode"][str(batch)] = batch * steps_per_second(decoder(batch))
    sys.stdout.write(json.dumps(result) + "\n")
