"""Seconds from `exo start` to the first answer of the API.

python -m benchmarks.start [--repeat 5]
"""

import argparse
import statistics
import sys
import tempfile
import time

from benchmarks.servers import ALONE, free_port, process, wait_until_ready


def once(home: str) -> float:
    port = free_port()
    begun = time.perf_counter()
    with process(
        [sys.executable, "-m", "exo", "start", f"--port={port}"], EXO_HOME=home, **ALONE
    ) as daemon:
        wait_until_ready(f"http://127.0.0.1:{port}/readyz", daemon)
        return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        first = once(home)
        others = [once(home) for _ in range(options.repeat)]
    print(f"first start in a new home: {first:.2f} s")
    print(f"median of {options.repeat} more: {statistics.median(others):.2f} s")


if __name__ == "__main__":
    main()
