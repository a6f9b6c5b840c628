"""Free memory of an NVIDIA card, from the library that comes with every driver (NVML).

Called through ctypes: the daemon must not import MLX, and starting `nvidia-smi` takes a second.
"""

import ctypes
from functools import lru_cache

from exo.device.profile import Memory

_LIBRARY = "libnvidia-ml.so.1"
_SUCCESS = 0


class _MemoryInfo(ctypes.Structure):
    """nvmlMemory_t."""

    _fields_ = (
        ("total", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    )


def card_memory(card: str | None) -> Memory | None:
    """Memory of the card with this UUID; of the first card if None.

    None when NVML does not tell: there is no driver, or the card shares the machine's memory.
    """
    library = _load()
    if library is None:
        return None
    handle = ctypes.c_void_p()
    if card is None:
        status = library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(0), ctypes.byref(handle))
    else:
        status = library.nvmlDeviceGetHandleByUUID(card.encode(), ctypes.byref(handle))
    info = _MemoryInfo()
    if status != _SUCCESS or library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(info)):
        return None
    return Memory(total=info.total, available=info.free)


@lru_cache(maxsize=1)
def _load() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(_LIBRARY)
        return library if library.nvmlInit_v2() == _SUCCESS else None
    except (OSError, AttributeError):  # no such library; a library without that function
        return None
