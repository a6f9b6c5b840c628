"""Trains the transformer and the text encoder together, by flow matching on a VAE's latents."""

from __future__ import annotations

import argparse
import copy
import math
import time
from pathlib import Path

import latents
import numpy as np
import tokenizer as words
import torch
from pictures import SIDE, draw
from prompts import sample
from sizes import TEXT_ENCODER, TRANSFORMER
from text_encoder import TextEncoder
from torch import Tensor, nn
from transformer import Transformer, grid
from vae import VAE

BATCH, SEED, WARM, POOL = 64, 2, 200, 30_000
DECAY = 0.999
# mflux's shift of the sigmas for 8 steps of a picture of 16 patches.
STEPS, PATCHES = 8, (SIDE // 16) ** 2


def shift(patches: int, steps: int) -> float:
    """The mu of FLUX.2's scheduler for up to 4300 patches: linear in the steps."""
    few, many = 8.73809524e-05 * patches + 1.89833333, 0.00016927 * patches + 0.45666666
    return many + (few - many) * (200 - steps) / 190


def shifted(times: Tensor) -> Tensor:
    """Sigmas of times of 0 to 1, spread as at inference."""
    by = math.exp(shift(PATCHES, STEPS))
    return by * times / (1 + (by - 1) * times)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.text_encoder = TextEncoder(**TEXT_ENCODER)
        self.transformer = Transformer(**TRANSFORMER)

    def forward(self, noisy: Tensor, sigma: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        side = SIDE // 16
        return self.transformer(noisy, self.text_encoder(ids, mask), sigma, grid(side, side))


def pool(vae: VAE, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Normalised latents, tokens and masks of so many samples; sets the VAE's statistics."""
    rng = np.random.default_rng(SEED)
    samples = [sample(rng) for _ in range(count)]
    pictures = np.stack([draw(scene, rng) for _, scene, _ in samples])
    packed = latents.encode(vae, torch.from_numpy(pictures).permute(0, 3, 1, 2))
    latents.measure(vae, packed)
    ids, mask = words.encode(words.train(), [prompt for prompt, _, _ in samples])
    return latents.normalise(vae, packed), torch.from_numpy(ids), torch.from_numpy(mask)


def loss_of(model: Model, clean: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    noise = torch.randn_like(clean)
    sigma = shifted(torch.rand(len(clean)))
    part = sigma[:, None, None]
    velocity = model((1 - part) * clean + part * noise, sigma, ids, mask)
    return (velocity - (noise - clean)).square().mean()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=12_000)
    parser.add_argument("--pool", type=int, default=POOL)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(SEED)
    vae = VAE()
    vae.load_state_dict(torch.load(given.vae))
    clean, ids, mask = pool(vae, given.pool)
    model = Model()
    slow = copy.deepcopy(model).requires_grad_(False)
    optimiser = torch.optim.AdamW(model.parameters(), given.rate, (0.9, 0.99), weight_decay=0.01)
    began = time.monotonic()
    for step in range(given.steps):
        rate = given.rate * min(1.0, (step + 1) / WARM)
        rate *= 0.02 + 0.98 * (1 + math.cos(math.pi * step / given.steps)) / 2
        for group in optimiser.param_groups:
            group["lr"] = rate
        chosen = torch.randint(len(clean), (BATCH,))
        loss = loss_of(model, clean[chosen], ids[chosen], mask[chosen])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        decay = min(DECAY, (step + 1) / (step + 10))
        for old, new in zip(slow.parameters(), model.parameters(), strict=True):
            old.lerp_(new, 1 - decay)
        if step % 50 == 0 or step == given.steps - 1:
            print(f"{step} {time.monotonic() - began:.0f}s loss {loss:.4f}", flush=True)
        if step % 250 == 249 or step == given.steps - 1:
            torch.save({"vae": vae.state_dict(), "model": slow.state_dict()}, given.out)


if __name__ == "__main__":
    main()
