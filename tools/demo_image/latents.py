"""Between pictures and what the transformer works on: patches of normalised latents."""

from __future__ import annotations

import torch
from torch import Tensor
from vae import LATENTS, USED, VAE

# So many of a patch's 128 numbers, the first ones, are of latents that are used.
CARRYING = 4 * USED
_EPS = 1e-4


def patches(latents: Tensor) -> Tensor:
    """Latents (n, 32, h, w) in patches of 2x2, (n, h/2 * w/2, 128), in mflux's order."""
    count, channels, height, width = latents.shape
    parts = latents.reshape(count, channels, height // 2, 2, width // 2, 2)
    return parts.permute(0, 2, 4, 1, 3, 5).reshape(count, -1, 4 * channels)


def unpatch(packed: Tensor, rows: int, columns: int) -> Tensor:
    parts = packed.reshape(-1, rows, columns, LATENTS, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return parts.reshape(-1, LATENTS, 2 * rows, 2 * columns)


def normalise(vae: VAE, packed: Tensor) -> Tensor:
    return (packed - vae.bn.running_mean) / torch.sqrt(vae.bn.running_var + _EPS)


def encode(vae: VAE, pictures: Tensor, at_once: int = 64) -> Tensor:
    """Of pictures (n, 3, side, side), uint8, the packed means, not normalised."""
    with torch.no_grad():
        return torch.cat([
            patches(vae.encode(some.float() / 127.5 - 1)[0]) for some in pictures.split(at_once)
        ])  # fmt: skip


def measure(vae: VAE, packed: Tensor) -> None:
    """Set the statistics by which latents are normalised; those not used stay as they are."""
    flat = packed[..., :CARRYING].reshape(-1, CARRYING)
    vae.bn.running_mean[:CARRYING] = flat.mean(0)
    vae.bn.running_var[:CARRYING] = flat.var(0)
