"""`python -m exo.device.probe`: the child process that measures, so that the daemon needs no MLX.

Prints one line of JSON on stdout: a DeviceProfile, or `{"error": …}` and exit status 1 if MLX
cannot be used here. With a folder as its argument, it measures with the BLAS that runners get,
which is prepared there.
"""

import json
import os
import sys
from pathlib import Path

from exo.device.blas import blas_environment


def main() -> int:
    if len(sys.argv) > 1:
        # A library is preloaded when a process starts: begin again, as the same process.
        environment = {**os.environ, **blas_environment(Path(sys.argv[1]))}
        os.execve(sys.executable, [sys.executable, "-P", "-m", "exo.device.probe"], environment)  # noqa: S606
    try:
        # Here, because on a machine without its libraries it is this import that fails.
        from exo.device.benchmark import measure_device  # noqa: PLC0415

        line, status = measure_device().model_dump_json(), 0
    except (ImportError, OSError, RuntimeError, ValueError, MemoryError) as error:
        line, status = json.dumps({"error": f"{type(error).__name__}: {error}"}), 1
    sys.stdout.write(line + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
