"""The memory limit that Linux control groups (containers, systemd, Kubernetes) put on this process.

`psutil` tells of the whole machine; a container that goes by that is killed by the kernel.
"""

from pathlib import Path

from exo.device.profile import Memory

# Per version: the limits (the lower counts), the use, and in memory.stat the part of the use that
# is file cache, which the kernel gives back when asked.
_V1 = (("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file")
_V2 = (("memory.max", "memory.high"), "memory.current", "inactive_file")


def cgroup_memory(process: Path = Path("/proc/self")) -> Memory | None:
    """The tightest limit of this process's groups and what is left of it; None without a limit.

    A limit may be higher than the machine's memory.
    """
    found: list[Memory] = []
    for folder, top, is_v2 in _groups(process):
        limits, usage, cache = _V2 if is_v2 else _V1
        for group in (folder, *folder.parents):
            values = [_number(group / name) for name in limits]
            if total := min((value for value in values if value is not None), default=None):
                used = (_number(group / usage) or 0) - _statistic(group / "memory.stat", cache)
                found.append(Memory(total=total, available=max(0, total - max(0, used))))
            if group == top:
                break
    if not found:
        return None
    return Memory(
        total=min(memory.total for memory in found),
        available=min(memory.available for memory in found),
    )


def _groups(process: Path) -> list[tuple[Path, Path, bool]]:
    """This process's group in each memory hierarchy: its folder, the mount point, is it v2."""
    own: dict[bool, str] = {}
    for line in _read(process / "cgroup").splitlines():
        hierarchy, controllers, path = line.split(":", 2)
        if hierarchy == "0" or "memory" in controllers.split(","):
            own[hierarchy == "0"] = path
    groups: list[tuple[Path, Path, bool]] = []
    for line in _read(process / "mountinfo").splitlines():
        # 31 23 0:28 ROOT MOUNT_POINT OPTIONS … - TYPE SOURCE SUPER_OPTIONS
        left, _, right = line.partition(" - ")
        root, mount_point = left.split()[3:5]
        kind, *_, options = right.split()
        is_v2 = kind == "cgroup2"
        if is_v2 in own and (is_v2 or (kind == "cgroup" and "memory" in options.split(","))):
            top = Path(mount_point)
            groups.append((_below(top, root, own[is_v2]), top, is_v2))
    return groups


def _below(top: Path, root: str, path: str) -> Path:
    """The folder of group `path` under a mount whose own group is `root`.

    A container often sees its group's name from the outside while only the group itself is
    mounted: then the mount point is the group.
    """
    if path == root or ".." in Path(path).parts:
        return top
    inside = path.removeprefix(root.rstrip("/") + "/").strip("/")
    folder = top / inside
    return folder if folder.is_dir() else top


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _number(path: Path) -> int | None:
    text = _read(path).strip()
    return int(text) if text.isdecimal() else None


def _statistic(path: Path, name: str) -> int:
    for line in _read(path).splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.isdecimal():
            return int(value)
    return 0
