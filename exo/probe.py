"""`python -m exo.probe`: the child that measures, so that the daemon needs no MLX.

Prints one line of JSON on stdout: a DeviceProfile, or `{"error": …}` and exit status 1 if MLX
cannot be used here. With a folder as its argument, it measures with the BLAS that runners get,
which is prepared there.
"""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from exo.device.blas import blas_environment
from exo.device.huge_pages import huge_page_environment

if TYPE_CHECKING:
    from exo.device.profile import DeviceProfile


def main() -> int:
    if len(sys.argv) > 1:
        # A library is preloaded and malloc set when a process starts: begin again, as the same one.
        environment = {
            **os.environ,
            **blas_environment(Path(sys.argv[1])),
            **huge_page_environment(os.environ),
        }
        os.execve(sys.executable, [sys.executable, "-P", "-m", "exo.probe"], environment)  # noqa: S606
    try:
        line, status = _measure().model_dump_json(), 0
    except (ImportError, OSError, RuntimeError, ValueError, MemoryError) as error:
        line, status = json.dumps({"error": f"{type(error).__name__}: {error}"}), 1
    sys.stdout.write(line + "\n")
    return status


def _measure() -> "DeviceProfile":
    # Here, because on a machine without its libraries it is the import of MLX that fails.
    import mlx.core as mx  # noqa: PLC0415

    from exo.device.benchmark import measure_device  # noqa: PLC0415
    from exo.errors import KernelsUnavailable  # noqa: PLC0415
    from exo.inference.kernels.library import load  # noqa: PLC0415
    from exo.inference.kernels.products import products  # noqa: PLC0415

    if mx.default_device() != mx.Device(mx.cpu):
        return measure_device()
    try:
        library = load()
    except KernelsUnavailable as error:
        return measure_device(no_kernels=f"{error.message} {error.hint or ''}".strip())
    return measure_device(products(library), kernels=library.name())


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    # A BLAS waits for its own threads at the end of a process, and OpenBLAS's have been seen to
    # sleep through that.
    os._exit(status)
