"""Memory of the device that computes, now."""

from pathlib import Path

import psutil

from exo.device.cgroup import cgroup_memory
from exo.device.nvml import card_memory
from exo.device.profile import Memory


def read_memory(kind: str, metal_limit: int | None, card: str | None = None) -> Memory:
    """Total and available bytes; a few system calls, no waiting.

    Args:
        kind: `cpu`, `metal` or `cuda`.
        metal_limit: with `metal`, the bytes that Metal recommends to use (the profile's
            `memory_total`). The GPU shares the machine's memory, so both bounds hold.
        card: with `cuda`, the card's UUID (the profile's `card`); the first card if None.
    """
    if kind == "cuda" and (memory := card_memory(card)):
        return memory
    # A CUDA card that tells no memory of its own shares the machine's (Jetson, DGX Spark).
    memory = machine_memory()
    return _within(memory, metal_limit, metal_limit) if kind == "metal" else memory


def machine_memory(process: Path = Path("/proc/self")) -> Memory:
    """The machine's memory, or what this process's container may have of it, in bytes."""
    machine = psutil.virtual_memory()
    memory = Memory(total=machine.total, available=machine.available)
    if limit := cgroup_memory(process):
        memory = _within(memory, limit.total, limit.available)
    return memory


def _within(memory: Memory, total: int | None, available: int | None) -> Memory:
    return Memory(
        total=memory.total if total is None else min(memory.total, total),
        available=memory.available if available is None else min(memory.available, available),
    )
