"""`python -m benchmarks.cpu.bandwidth [SHAPE]`: how much of the memory's bandwidth an answer uses.

Steps of one stream with 4-bit weights and plain reading of memory take turns, since the bandwidth
of a virtual machine moves from second to second with its neighbours.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable

import mlx.core as mx
from mlx.utils import tree_flatten

from benchmarks.cpu.mlx_model import decoder, ready
from benchmarks.cpu.roofline import large_memory
from exo.device.huge_pages import huge_page_environment
from exo.inference.kernels.library import load

# As in an answer, most steps are begun while another is computed.
ROUNDS, STEPS = 20, 24


def took(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    if environment := huge_page_environment(os.environ):
        # As a runner has it, and malloc is set when a process starts: begin again.
        command = [sys.executable, "-m", "benchmarks.cpu.bandwidth", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, **environment})  # noqa: S606
    shape = sys.argv[1] if len(sys.argv) > 1 else "llama-3.2-1b"
    model, form = ready(shape, "q4")
    library = load()
    size = sum(array.nbytes for _, array in tree_flatten(model.parameters()))
    memory = large_memory()
    step = decoder(model, form, 1)

    def steps() -> None:
        for _ in range(STEPS):
            step()
        mx.synchronize()  # The last one is begun only.

    steps()
    pairs = [
        (took(steps) / STEPS, took(lambda: library.read_memory(memory))) for _ in range(ROUNDS)
    ]
    shares = [(size / answer) / (memory.nbytes / reading) for answer, reading in pairs]
    result = {
        "shape": shape,
        "tokens_per_second": 1 / statistics.median(answer for answer, _ in pairs),
        "bandwidth": memory.nbytes / statistics.median(reading for _, reading in pairs),
        "share_of_bandwidth": statistics.median(shares),
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
