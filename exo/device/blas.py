"""A fast BLAS for MLX on a Linux CPU.

mlx-cpu multiplies float32 matrices with the reference BLAS that it is linked to. The wheel
`scipy-openblas32` holds OpenBLAS, with every symbol prefixed by `scipy_`; a copy whose symbols have
their common names, preloaded into the runner, takes the reference's place without a compiler.
"""

import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

_SYMBOLS = ("cblas_sgemm", "cblas_dgemm", "cblas_cgemm")
log = logging.getLogger(__name__)


def prepare_blas(cache: Path) -> Path | None:
    """The library to preload, made in `cache` at first use; None where it does not apply.

    Takes about 0.1 s the first time.
    """
    wheel = _installed_library()
    tool = _patchelf()
    if sys.platform != "linux" or wheel is None or tool is None:
        return None
    stat = wheel.stat()
    target = cache / f"openblas-{stat.st_size}-{int(stat.st_mtime)}.so"
    if target.exists():
        return target
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as work:
            names, copy = Path(work, "names"), Path(work, "openblas.so")
            names.write_text("".join(f"scipy_{name} {name}\n" for name in _SYMBOLS))
            shutil.copyfile(wheel, copy)
            command = [tool, "--rename-dynamic-symbols", names, copy]
            subprocess.run(command, check=True, capture_output=True)
            copy.rename(target)
    except (OSError, subprocess.CalledProcessError) as error:
        log.warning("OpenBLAS cannot be prepared, matrices are multiplied slowly: %s", error)
        return None
    return target


def blas_environment(cache: Path) -> dict[str, str]:
    """What a runner's environment needs for it. One core is left to the daemon and the system:
    OpenBLAS's threads spin, and lose much more than a core when they must share one."""
    library = prepare_blas(cache)
    if library is None:
        return {}
    threads = max(1, _cores() - 1)
    return {"LD_PRELOAD": str(library), "OPENBLAS_NUM_THREADS": str(threads)}


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _installed_library() -> Path | None:
    spec = importlib.util.find_spec("scipy_openblas32")
    if spec is None or spec.origin is None:
        return None
    library = Path(spec.origin).parent / "lib" / "libscipy_openblas.so"
    return library if library.exists() else None


def _patchelf() -> str | None:
    """The one beside this interpreter: the environment need not be on the PATH."""
    return shutil.which("patchelf", path=str(Path(sys.executable).parent)) or shutil.which(
        "patchelf"
    )
