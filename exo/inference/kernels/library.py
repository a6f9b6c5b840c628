"""The compiled kernels, found and loaded."""

import importlib.machinery
import importlib.util
import os
from functools import cache
from pathlib import Path
from typing import Any, Protocol, cast

import mlx.core as mx

from exo.errors import KernelsUnavailable
from exo.inference.kernels.built import FOLDER, LIBRARY, why_not


class Packed(Protocol):
    """What a packed array holds."""


class Library(Protocol):
    """The functions of `cpp/bindings.cpp`. Those that return arrays are lazy."""

    def quantized(
        self, n: int, k: int, bits: int, group: int, fp4: bool, scales: str
    ) -> Packed: ...
    def dense(self, n: int, k: int, type: str) -> Packed: ...  # noqa: A002  the library's name
    def pack_quantized(
        self, codes: mx.array, scales: mx.array, biases: mx.array | None, bits: int, group: int
    ) -> mx.array: ...
    def pack_dense(self, weight: mx.array) -> mx.array: ...
    def matmul(self, x: mx.array, packed: mx.array, shape: Packed) -> mx.array: ...
    def gather_matmul(
        self, x: mx.array, packed: mx.array, experts: mx.array, shape: Packed
    ) -> mx.array: ...
    def take_rows(self, packed: mx.array, rows: mx.array, shape: Packed) -> mx.array: ...
    def rms_norm(self, x: mx.array, weight: mx.array | None, epsilon: float) -> mx.array: ...
    def gated(self, gate: mx.array, up: mx.array) -> mx.array: ...
    def rope(
        self,
        x: mx.array,
        dims: int,
        traditional: bool,
        scale: float,
        offset: mx.array,
        inverse: mx.array,
    ) -> mx.array: ...
    def attention(
        self,
        q: mx.array,
        k: mx.array,
        v: mx.array,
        scale: float,
        causal: bool,
        mask: mx.array | None,
        sinks: mx.array | None,
    ) -> mx.array: ...
    def read_memory(self, array: mx.array) -> int: ...
    def multiply_in_registers(self, count: int, integers: bool) -> float: ...
    def set_threads(self, threads: int) -> None: ...
    def threads(self) -> int: ...
    def use(self, name: str) -> bool: ...
    def name(self) -> str: ...


def load(folder: Path = FOLDER) -> Library:
    """The kernels, with a thread for each core that this process may use.

    EXO_KERNELS=off turns them off; avx2, avx512, avx512vnni, avx512amx or neon choose some.

    Raises:
        KernelsUnavailable: with the reason.
    """
    wanted = os.environ.get("EXO_KERNELS", "")
    if wanted == "off":
        raise KernelsUnavailable("The CPU kernels are off (EXO_KERNELS=off).")
    reason = why_not(folder)
    if reason is not None:
        raise KernelsUnavailable(
            f"The CPU kernels are not used: {reason}.",
            hint="./install.sh builds them, and in a clone `make kernels` does.",
        )
    library = _open(folder / LIBRARY)
    if not library.use("" if wanted == "on" else wanted):
        which = f"{wanted!r} kernels" if wanted else "AVX2, AVX-512 or NEON kernels"
        raise KernelsUnavailable(f"This processor cannot execute {which}.")
    library.set_threads(len(os.sched_getaffinity(0)))
    return library


@cache
def _open(path: Path) -> Library:
    loader = importlib.machinery.ExtensionFileLoader("_kernels", str(path))
    spec = importlib.util.spec_from_loader("_kernels", loader)
    if spec is None:
        raise KernelsUnavailable(f"{path} is not a library.")
    try:
        module: Any = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
        # The types of MLX are known to the library only if both were made with the same nanobind.
        module.rms_norm(mx.zeros((1, 16)), None, 1e-5)
    except (ImportError, TypeError) as error:
        raise KernelsUnavailable(
            f"The CPU kernels do not fit this MLX ({error}).", hint="Run install.sh again."
        ) from error
    return cast("Library", module)
