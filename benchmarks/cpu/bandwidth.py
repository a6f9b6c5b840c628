"""`python -m benchmarks.cpu.bandwidth [SHAPE]`: how much of the memory's bandwidth an answer uses.

Steps of one stream with 4-bit weights and plain reading of memory take turns, since the bandwidth
of a virtual machine moves from second to second with its neighbours.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable

import mlx.core as mx
from mlx.utils import tree_flatten, tree_map
from mlx_lm.models.cache import make_prompt_cache

from benchmarks.cpu.mlx_model import make
from exo.inference.kernels.layers import swap
from exo.inference.kernels.library import load
from exo.inference.kernels.use import use_kernels
from exo.inference.mlx.held import KvForm

ROUNDS, STEPS = 30, 6
HALVES = (mx.bfloat16, mx.float16)


def took(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    shape = sys.argv[1] if len(sys.argv) > 1 else "llama-3.2-1b"
    mx.set_default_device(mx.Device(mx.cpu))
    mx.disable_compile()
    use_kernels()
    library = load()
    model = make(shape, "q4")
    swap(model, library)
    model.update(
        tree_map(lambda a: a.astype(mx.float32) if a.dtype in HALVES else a, model.parameters())
    )
    mx.eval(model.parameters())
    size = sum(array.nbytes for _, array in tree_flatten(model.parameters()))
    # More than any cache holds, and not zeros: pages of those may all be the same one.
    memory = mx.random.randint(0, 2**31 - 1, (1 << 28,))
    mx.eval(memory)
    caches = KvForm(dtype=mx.bfloat16).of(make_prompt_cache(model))
    token = mx.array([[5]])

    def steps() -> None:
        """As exo does it: a token is begun before the one before it is there."""
        nonlocal token
        for _ in range(STEPS):
            following = mx.argmax(model(token, cache=caches)[:, -1:], axis=-1)
            mx.async_eval(following)
            mx.eval(token)
            token = following
        mx.eval(token)

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
