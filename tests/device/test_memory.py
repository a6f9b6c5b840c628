"""Memory of the machine, of its control groups and of a card."""

import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from exo.device import memory, nvml
from exo.device.cgroup import cgroup_memory
from exo.device.memory import machine_memory, read_memory
from exo.device.profile import Memory

GIB = 2**30
NO_LIMIT_V1 = 9223372036854771712


class Groups:
    """A made-up /proc/self and a made-up control group file system."""

    def __init__(self, folder: Path) -> None:
        self.process, self.top = folder / "proc", folder / "cgroup"
        self.process.mkdir()
        self.top.mkdir()

    def v2(self, own: str, root: str = "/") -> None:
        self._write(f"0::{own}\n", f"29 23 0:26 {root} {self.top} rw shared:4 - cgroup2 cgroup2 rw")

    def v1(self, own: str, root: str = "/") -> None:
        mount = f"31 23 0:28 {root} {self.top} rw - cgroup cgroup rw,memory"
        cpu = "30 23 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu"
        self._write(f"5:cpu:/other\n4:memory:{own}\n0::/\n", f"{cpu}\n{mount}")

    def set(self, group: str, **files: object) -> None:
        folder = self.top / group.strip("/")
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in files.items():
            (folder / f"memory.{name}").write_text(f"{value}\n")

    def _write(self, cgroup: str, mounts: str) -> None:
        (self.process / "cgroup").write_text(cgroup)
        root = "22 1 8:1 / / rw - ext4 /dev/sda1 rw"
        (self.process / "mountinfo").write_text(f"{root}\n{mounts}\n")


@pytest.fixture
def groups(tmp_path: Path) -> Groups:
    return Groups(tmp_path)


def test_v2_no_limit(groups: Groups) -> None:
    groups.v2("/user.slice/app")
    groups.set("/user.slice/app", max="max", high="max", current=5)
    assert cgroup_memory(groups.process) is None


def test_v2_limit_without_the_file_cache(groups: Groups) -> None:
    groups.v2("/app")
    stat = "anon 1\ninactive_file 1073741824\nactive_file 7"
    groups.set("/app", max=4 * GIB, current=3 * GIB, stat=stat)
    assert cgroup_memory(groups.process) == Memory(total=4 * GIB, available=2 * GIB)


def test_v2_high_and_the_groups_above_count(groups: Groups) -> None:
    groups.v2("/pod/app")
    groups.set("/pod/app", max=8 * GIB, high=6 * GIB, current=1 * GIB)
    groups.set("/pod", max=7 * GIB, current=5 * GIB)
    assert cgroup_memory(groups.process) == Memory(total=6 * GIB, available=2 * GIB)


def test_v2_over_its_limit(groups: Groups) -> None:
    groups.v2("/app")
    groups.set("/app", high=1 * GIB, max="max", current=2 * GIB)
    assert cgroup_memory(groups.process) == Memory(total=GIB, available=0)


def test_v2_in_a_container(groups: Groups) -> None:
    groups.v2("/")
    groups.set("/", max=2 * GIB, current=GIB)
    assert cgroup_memory(groups.process) == Memory(total=2 * GIB, available=GIB)


def test_v1_limit(groups: Groups) -> None:
    groups.v1("/job")
    stat = "cache 1\ninactive_file 3\ntotal_inactive_file 1073741824"
    groups.set("/job", limit_in_bytes=4 * GIB, usage_in_bytes=2 * GIB, stat=stat)
    groups.set("/", limit_in_bytes=NO_LIMIT_V1, usage_in_bytes=9 * GIB)
    assert cgroup_memory(groups.process) == Memory(total=4 * GIB, available=3 * GIB)


@pytest.mark.parametrize("root", ["/docker/abc", "/docker/abc/"])
def test_v1_in_a_container_that_sees_its_outer_name(groups: Groups, root: str) -> None:
    groups.v1("/docker/abc", root)
    groups.set("/", limit_in_bytes=GIB, usage_in_bytes=0)
    assert cgroup_memory(groups.process) == Memory(total=GIB, available=GIB)


@pytest.mark.parametrize("own", ["/../sibling", "/gone"])
def test_a_group_that_is_not_mounted(groups: Groups, own: str) -> None:
    groups.v2(own)
    groups.set("/", max=GIB, current=0)
    assert cgroup_memory(groups.process) == Memory(total=GIB, available=GIB)


def test_no_control_groups(tmp_path: Path) -> None:
    assert cgroup_memory(tmp_path) is None


def test_the_lower_of_machine_and_group(groups: Groups) -> None:
    groups.v2("/app")
    groups.set("/app", max=GIB // 8, current=0)
    assert machine_memory(groups.process) == Memory(total=GIB // 8, available=GIB // 8)
    groups.set("/app", max=2**60)
    assert machine_memory(groups.process).total == psutil.virtual_memory().total


def test_this_machine() -> None:
    found = read_memory("cpu", None)
    assert 0 < found.available <= found.total <= psutil.virtual_memory().total


def test_metal_is_bounded_by_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "machine_memory", lambda: Memory(total=16 * GIB, available=9 * GIB))
    assert read_memory("metal", 10 * GIB) == Memory(total=10 * GIB, available=9 * GIB)
    assert read_memory("metal", 5 * GIB) == Memory(total=5 * GIB, available=5 * GIB)
    assert read_memory("metal", None) == Memory(total=16 * GIB, available=9 * GIB)


class FakeNvml:
    """The functions of libnvidia-ml; with `total` 0, of a card that shares the machine's memory."""

    def __init__(self, init: int = 0, total: int = 24 * GIB) -> None:
        self._init, self._total = init, total
        self.asked: list[object] = []

    def nvmlInit_v2(self) -> int:  # noqa: N802
        return self._init

    def nvmlDeviceGetHandleByIndex_v2(self, index: ctypes.c_uint, _handle: Any) -> int:  # noqa: N802
        self.asked.append(index.value)
        return 0

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes, _handle: Any) -> int:  # noqa: N802
        self.asked.append(uuid)
        return 0 if uuid == b"GPU-1" else 6

    def nvmlDeviceGetMemoryInfo(self, _handle: Any, info: Any) -> int:  # noqa: N802
        info._obj.total, info._obj.free = self._total, self._total // 2
        return 0 if self._total else 3


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[FakeNvml], None]]:
    def use(library: FakeNvml) -> None:
        nvml._load.cache_clear()
        monkeypatch.setattr(nvml.ctypes, "CDLL", lambda _name: library)

    yield use
    nvml._load.cache_clear()


def test_card(install: Callable[[FakeNvml], None]) -> None:
    library = FakeNvml()
    install(library)
    assert read_memory("cuda", None) == Memory(total=24 * GIB, available=12 * GIB)
    assert read_memory("cuda", None, "GPU-1") == Memory(total=24 * GIB, available=12 * GIB)
    assert library.asked == [0, b"GPU-1"]


@pytest.mark.parametrize("library", [FakeNvml(init=9), FakeNvml(total=0)])
def test_card_without_memory_of_its_own(
    install: Callable[[FakeNvml], None], library: FakeNvml
) -> None:
    install(library)
    assert read_memory("cuda", None).total == read_memory("cpu", None).total


def test_unknown_card(install: Callable[[FakeNvml], None]) -> None:
    install(FakeNvml())
    assert nvml.card_memory("GPU-2") is None


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "_LIBRARY", "libno-such-thing.so.1")
    nvml._load.cache_clear()
    assert nvml.card_memory(None) is None
    nvml._load.cache_clear()
