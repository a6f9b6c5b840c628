"""The measurement itself: MLX on its default device, about a second in all on a slow CPU.

Imported by the child process only.
"""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from platform import python_version

import mlx.core as mx

from exo.device.host import cores, cpu_name, os_name
from exo.device.memory import read_memory
from exo.device.profile import DTYPES, DeviceProfile, Kind

# Given x (n, n) and w (n, n), makes ready what computes a product of the two.
Product = Callable[[mx.array, mx.array], Callable[[], mx.array]]

_LONG_ENOUGH = 0.03  # seconds; beyond it, the cost of starting a computation no longer counts
_BUDGET = 0.15  # seconds that repeating one measurement may take
_SMALLEST, _LARGEST = 64, 8192  # rows and columns of the matrices
_READ_BYTES = 256 * 2**20  # more than the caches of any CPU core or GPU
_MOST_READS = 256


def measure_device(
    products: Mapping[str, Product] | None = None,
    *,
    kernels: str | None = None,
    no_kernels: str | None = None,
) -> DeviceProfile:
    """Measure the device that MLX computes on by default.

    Args:
        products: how matrices are multiplied, by dtype or kind, where it is not by MLX itself.
        kernels: the kernels that these products are of.
        no_kernels: why there are none.
    """
    products = products or dict.fromkeys(DTYPES, _own_product)
    kind, info = _kind(), mx.device_info()
    if kind == "metal":
        total = int(info["max_recommended_working_set_size"])
        available = read_memory(kind, total).available
    elif kind == "cuda":
        if not mx.device_count(mx.gpu):
            raise RuntimeError("MLX was installed for CUDA and finds no card")
        total, available = int(info["total_memory"]), int(info["free_memory"])
    else:
        memory = read_memory(kind, None)
        total, available = memory.total, memory.available
    room = available // 8
    return DeviceProfile(
        kind=kind,
        name=cpu_name() if kind == "cpu" else str(info["device_name"]),
        cores=cores(),
        memory_total=total,
        flops={name: _matmul_rate(name, product, room) for name, product in products.items()},
        memory_bandwidth=_read_rate(room),
        os=os_name(),
        python=python_version(),
        mlx=version("mlx"),
        kernels=kernels,
        no_kernels=no_kernels,
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        card=str(info["uuid"]) if kind == "cuda" and "uuid" in info else None,
    )


def _kind() -> Kind:
    if mx.default_device().type == mx.cpu:
        return "cpu"
    return "metal" if mx.metal.is_available() else "cuda"


def _own_product(x: mx.array, w: mx.array) -> Callable[[], mx.array]:
    return lambda: x @ w


def _matmul_rate(dtype_name: str, prepare: Product, room: int) -> float:
    """FLOP/s of a square matrix product, as large as takes long enough and fits in `room` bytes."""
    dtype: mx.Dtype = {"float16": mx.float16, "bfloat16": mx.bfloat16}.get(dtype_name, mx.float32)
    size = _SMALLEST
    while True:
        # Random numbers: a GPU is faster on zeros than it will ever be on weights.
        a, b = (mx.random.normal((size, size)).astype(dtype) for _ in range(2))

        def product(multiply: Callable[[], mx.array] = prepare(a, b)) -> None:  # noqa: B008  each size has its own
            multiply()[0, 0].item()  # asking for one number computes the whole product

        seconds = _least_seconds(product, 0)
        next_bytes = 3 * (2 * size) ** 2 * 4
        if seconds >= _LONG_ENOUGH or size >= _LARGEST or next_bytes > room:
            return 2 * size**3 / min(seconds, _least_seconds(product, _BUDGET))
        size *= 2


def _read_rate(room: int) -> float:
    """Bytes/s of reading memory: sums over an array larger than the caches.

    int32, because its sum is the reduction that costs the least besides the reading.
    """
    data = mx.ones((max(1, min(_READ_BYTES, room) // 4),), dtype=mx.int32)
    reads = 1
    while True:
        # Several in one evaluation: a fast GPU reads the array in less time than a start takes.
        def read(reads: int = reads) -> None:
            mx.stack([mx.sum(data) for _ in range(reads)]).sum().item()

        seconds = _least_seconds(read, 0)
        if seconds >= _LONG_ENOUGH or reads >= _MOST_READS:
            return data.nbytes * reads / min(seconds, _least_seconds(read, _BUDGET))
        reads *= 2


def _least_seconds(run: Callable[[], None], budget: float) -> float:
    """The shortest of as many runs as fit in `budget` seconds, and at least two.

    The first run also makes the data and may compile a kernel.
    """
    begin = time.perf_counter()
    least = float("inf")
    runs = 0
    while runs < 2 or time.perf_counter() - begin < budget:
        start = time.perf_counter()
        run()
        least = min(least, time.perf_counter() - start)
        runs += 1
    return least
