"""Trains the autoencoder on drawn scenes."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from pictures import COLOURS, PLACES, SHAPES, SIZES, Scene, draw
from prompts import kept_back
from torch import Tensor
from torch.nn import functional
from vae import VAE

BATCH, SEED, LARGE = 8, 1, 1e-3
# A difference between two pixels that is an edge, and how much more those around it count.
EDGE, NEAR = 0.1, 8
WARM = 100
POOL = 8000


def scene(rng: np.random.Generator) -> Scene:
    """Of a combination that prompts are trained on, so that the held-out ones are new to all."""
    while True:
        shape = str(rng.choice(SHAPES))
        colour, ground = (str(name) for name in rng.choice(list(COLOURS), 2, replace=False))
        if not kept_back(shape, colour, ground):
            return Scene(
                shape, colour, ground, str(rng.choice(list(SIZES))), str(rng.choice(list(PLACES)))
            )


def pictures(rng: np.random.Generator, count: int) -> Tensor:
    """Pictures (count, 3, side, side), uint8."""
    drawn = np.stack([draw(scene(rng), rng) for _ in range(count)])
    return torch.from_numpy(drawn).permute(0, 3, 1, 2).contiguous()


def edges(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


def outline(real: Tensor) -> Tensor:
    """How much each pixel counts, (n, 1, side, side): those near an edge more than plain ones, of
    which there are many, since shapes are told apart by their corners."""
    across, down = (edge.abs().amax(1, keepdim=True) > EDGE for edge in edges(real))
    near = functional.pad(across, (0, 1)) | functional.pad(down, (0, 0, 0, 1))
    return 1 + NEAR * functional.max_pool2d(near.float(), 5, 1, 2)


def loss_of(model: VAE, real: Tensor) -> tuple[Tensor, Tensor]:
    """The loss, and the part of it that tells how far pixels are off."""
    mean, log_variance = model.encode(real)
    made = model.decode(mean + torch.randn_like(mean) * (log_variance / 2).exp())
    weight = outline(real)
    weight = weight / weight.mean()
    absolute = (weight * (made - real).abs()).mean()
    squared = (weight * (made - real).square()).mean()
    edge = sum(functional.l1_loss(a, b) for a, b in zip(edges(made), edges(real), strict=True))
    # The first three latents are the colours at an eighth of the size: without that hint it takes
    # several times as long until colours are right.
    colours = functional.mse_loss(mean[:, :3], functional.avg_pool2d(real, 8))
    return absolute + squared + colours + 0.5 * edge + LARGE * mean.square().mean(), absolute


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--begin", type=Path, help="an autoencoder to go on from")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    model = VAE().to(memory_format=torch.channels_last)
    if given.begin:
        model.load_state_dict(torch.load(given.begin))
        model.leave_unused()
    optimiser = torch.optim.AdamW(model.parameters(), given.rate, (0.9, 0.99), weight_decay=1e-4)
    pool = pictures(rng, POOL)
    began = time.monotonic()
    for step in range(given.steps):
        warm = min(1.0, (step + 1) / WARM)
        rate = given.rate * warm * (0.02 + 0.98 * (1 + np.cos(np.pi * step / given.steps)) / 2)
        for group in optimiser.param_groups:
            group["lr"] = rate
        real = pool[torch.randint(POOL, (BATCH,))].float() / 127.5 - 1
        real = real.contiguous(memory_format=torch.channels_last)
        loss, absolute = loss_of(model, real)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        model.leave_unused()
        if step % 50 == 0 or step == given.steps - 1:
            spent = time.monotonic() - began
            print(f"{step} {spent:.0f}s loss {loss:.4f} l1 {absolute:.4f}", flush=True)
        if step % 250 == 249 or step == given.steps - 1:
            torch.save(model.state_dict(), given.out)


if __name__ == "__main__":
    main()
