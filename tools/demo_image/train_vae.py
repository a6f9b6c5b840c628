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

BATCH, SEED, KL = 8, 1, 1e-6
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


def loss_of(model: VAE, real: Tensor) -> tuple[Tensor, Tensor]:
    mean, log_variance = model.encode(real)
    log_variance = log_variance.clamp(-20, 10)
    made = model.decode(mean + torch.randn_like(mean) * (log_variance / 2).exp())
    absolute = functional.l1_loss(made, real)
    edge = sum(functional.l1_loss(a, b) for a, b in zip(edges(made), edges(real), strict=True))
    divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum((1, 2, 3)).mean()
    return absolute + 0.5 * edge + KL * divergence, absolute


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    model = VAE()
    optimiser = torch.optim.AdamW(model.parameters(), given.rate, (0.9, 0.99), weight_decay=1e-4)
    pool = pictures(rng, POOL)
    began = time.monotonic()
    for step in range(given.steps):
        warm = min(1.0, (step + 1) / WARM)
        rate = given.rate * warm * (0.02 + 0.98 * (1 + np.cos(np.pi * step / given.steps)) / 2)
        for group in optimiser.param_groups:
            group["lr"] = rate
        real = pool[torch.randint(POOL, (BATCH,))].float() / 127.5 - 1
        loss, absolute = loss_of(model, real)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if step % 50 == 0 or step == given.steps - 1:
            spent = time.monotonic() - began
            print(f"{step} {spent:.0f}s loss {loss:.4f} l1 {absolute:.4f}", flush=True)
        if step % 250 == 249 or step == given.steps - 1:
            torch.save(model.state_dict(), given.out)


if __name__ == "__main__":
    main()
