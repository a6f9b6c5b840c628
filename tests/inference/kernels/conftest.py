"""The kernels as the tests get them: built by `make test`, on Linux."""

import sys
from collections.abc import Iterator

import mlx.core as mx
import pytest

from exo.inference.kernels.library import Library, load

INSTRUCTION_SETS = ("avx512amx", "avx512vnni", "avx512", "avx2", "neon")


@pytest.fixture(scope="session")
def kernels() -> Iterator[Library]:
    if sys.platform != "linux":
        pytest.skip("The kernels are for Linux: MLX computes on the GPU of a Mac.")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("EXO_KERNELS", raising=False)
        library = load()
    library.set_threads(2)
    yield library
    library.use("")


@pytest.fixture
def sets(kernels: Library) -> Iterator[list[str]]:
    """The instruction sets that this processor has; more than one nearly everywhere."""
    yield [name for name in INSTRUCTION_SETS if kernels.use(name)]
    kernels.use("")


@pytest.fixture(autouse=True)
def on_cpu() -> Iterator[None]:
    device = mx.default_device()
    mx.set_default_device(mx.Device(mx.cpu))
    yield
    mx.set_default_device(device)
