"""`python -m benchmarks.cpu.roofline`: each kernel beside what the machine can do at most."""

import json
import sys
import time
from collections.abc import Callable

import mlx.core as mx

from exo.inference.kernels.library import Library, Packed, load

N, K = 8192, 2048
COPIES = 6  # of the weights, so that they do not stay in a cache


def best(run: Callable[[], object], repeat: int = 12) -> float:
    """Seconds of the fastest of some runs."""
    seconds: list[float] = []
    for _ in range(repeat):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def large_memory() -> mx.array:
    """1 GiB, more than a cache holds; and not zeros, of which all pages may be the same one."""
    memory = mx.random.randint(0, 2**31 - 1, (1 << 28,))
    mx.eval(memory)
    return memory


def _seconds(library: Library, x: mx.array, packed: list[mx.array], holds: Packed) -> float:
    """Of one product, each with other weights."""
    return best(lambda: mx.eval([library.matmul(x, p, holds) for p in packed])) / len(packed)


def main() -> None:
    mx.set_default_device(mx.Device(mx.cpu))
    library = load()
    memory = large_memory()
    vectors = 50_000_000
    bandwidth = memory.nbytes / best(lambda: library.read_memory(memory))
    peak = {
        "float32": 16 * vectors / best(lambda: library.multiply_in_registers(vectors, False), 5),
        "int16": 32 * vectors / best(lambda: library.multiply_in_registers(vectors, True), 5),
    }
    rows: list[dict[str, object]] = []
    weight = mx.random.normal((N, K))
    for kind in ("q4", "q8", "bfloat16", "float32"):
        if kind.startswith("q"):
            bits = int(kind[1])
            codes, scales, biases = mx.quantize(weight, group_size=64, bits=bits)
            scales, biases = scales.astype(mx.bfloat16), biases.astype(mx.bfloat16)
            packed = [
                library.pack_quantized(codes, scales, biases, bits, 64) for _ in range(COPIES)
            ]
            holds, unit = library.quantized(N, K, bits, 64, False, "bfloat16"), "int16"
        else:
            dtype = mx.float32 if kind == "float32" else mx.bfloat16
            packed = [library.pack_dense(weight.astype(dtype)) for _ in range(COPIES)]
            holds, unit = library.dense(N, K, kind), "float32"
        mx.eval(packed)
        for m in (1, 4, 8, 32, 128, 512):
            x = mx.random.normal((m, K))
            mx.eval(x)
            seconds = _seconds(library, x, packed if m <= 8 else packed[:1], holds)
            rows.append(
                {
                    "weights": kind,
                    "rows": m,
                    "memory": packed[0].nbytes / seconds / bandwidth,
                    "arithmetic": m * N * K / seconds / peak[unit],
                }
            )
    result = {"kernels": library.name(), "threads": library.threads()}
    result |= {"bandwidth": bandwidth, "peak": peak, "rows": rows}
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
