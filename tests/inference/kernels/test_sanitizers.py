"""The kernels' C++ under the address and undefined-behaviour sanitizers: a minute of compiling."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from exo.inference.kernels.build import build_test, lacking


@pytest.mark.timeout(400)
@pytest.mark.skipif(sys.platform != "linux", reason="The kernels are for Linux.")
def test_no_access_outside_of_the_buffers_and_no_undefined_behaviour(tmp_path: Path):
    flags = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1", "-g1")
    # Each instruction set takes half a minute to compile: of those that this processor has, the
    # widest has nearly all that those in between do; the others would not run.
    known, lacks = ("avx512amx", "avx512vnni", "avx512"), lacking(Path("/proc/cpuinfo").read_text())
    widest = next((name for name in known if name not in lacks), None)
    others = {name for name in known if name != widest}
    source = Path(__file__).parent / "cpp" / "sanitized.cpp"
    program = build_test(source, tmp_path, flags, without=others)
    done = subprocess.run(
        [program],
        # A BLAS that is preloaded is not the sanitizers' business.
        env={**os.environ, "LD_PRELOAD": "", "ASAN_OPTIONS": "detect_leaks=1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split()
