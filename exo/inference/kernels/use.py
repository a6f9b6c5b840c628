"""Puts the kernels to use in this process, where they apply."""

import logging
from functools import cache

import mlx.core as mx

from exo.errors import KernelsUnavailable
from exo.inference.kernels.library import Library, load

log = logging.getLogger(__name__)


@cache
def use_kernels() -> Library | None:
    """The kernels, with MLX's fast functions replaced by theirs; None where MLX computes on a GPU,
    or they cannot be used, which is logged."""
    if mx.default_device() != mx.Device(mx.cpu):
        return None
    try:
        library = load()
    except KernelsUnavailable as error:
        log.warning("%s %s", error.message, error.hint or "")
        return None
    # Here, since it imports mlx-lm, which takes a second that the probe need not wait for.
    from exo.inference.kernels.functions import install  # noqa: PLC0415

    install(library)
    log.info("CPU kernels: %s, %d threads.", library.name(), library.threads())
    return library
