"""Huge pages for the memory of a process that reads all of it for each token.

Weights are read from end to end, and with pages of 4 KiB the processor looks up a new one every 64
lines. Linux gives huge pages to memory that asks for them, and glibc's malloc, since 2.35, asks for
all of its larger pieces where it is told to: the tunable `glibc.malloc.hugetlb` in the manual of
the GNU C library. Other systems do not read it.
"""

from collections.abc import Mapping

_VARIABLE, _TUNABLE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"


def huge_page_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What is to be added to the `environment` of a process for it. What the user has set stays."""
    set_before = environment.get(_VARIABLE, "")
    if _TUNABLE in set_before:
        return {}
    return {_VARIABLE: f"{set_before}:{_TUNABLE}=1".lstrip(":")}
