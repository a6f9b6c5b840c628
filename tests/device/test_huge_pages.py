"""Larger allocations of a process lie in huge pages, as far as its system has any."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from exo.device.huge_pages import huge_page_environment

_ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_PROGRAM = """
import re
import mlx.core as mx
mx.set_default_device(mx.Device(mx.cpu))
memory = mx.arange(1 << 25)
mx.eval(memory)
rollup = open("/proc/self/smaps_rollup").read()
print(int(re.search(r"AnonHugePages: *(\\d+)", rollup)[1]) // 1024)
"""


def mebibytes_in_huge_pages(added: dict[str, str]) -> int:
    environment = {**os.environ, **added}
    return int(
        subprocess.check_output([sys.executable, "-c", _PROGRAM], env=environment, text=True)
    )


def test_what_the_user_has_set_stays():
    name, ours = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"
    other = "glibc.malloc.tcache_count=0"
    assert huge_page_environment({"PATH": "/bin"}) == {name: ours}
    assert huge_page_environment({name: other}) == {name: f"{other}:{ours}"}
    assert huge_page_environment({name: f"glibc.malloc.hugetlb=0:{other}"}) == {}


@pytest.mark.skipif(
    not _ENABLED.exists() or "[madvise]" not in _ENABLED.read_text(),
    reason="huge pages are not what this system gives to those who ask for them",
)
def test_arrays_lie_in_huge_pages():
    """128 MiB of them; how many the system has free is its own affair."""
    assert mebibytes_in_huge_pages({"GLIBC_TUNABLES": ""}) == 0
    assert mebibytes_in_huge_pages(huge_page_environment({})) > 0
