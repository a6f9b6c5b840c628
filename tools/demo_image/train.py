"""Trains the transformer and the text encoder together, by flow matching on a VAE's latents."""

from __future__ import annotations

import argparse
import copy
import math
import time
from pathlib import Path
from typing import NamedTuple

import edits
import latents
import numpy as np
import prompts
import tokenizer as words
import torch
from pictures import SIDE, draw
from sizes import TEXT_ENCODER, TRAINED, TRANSFORMER
from text_encoder import TextEncoder
from torch import Tensor, nn
from transformer import Transformer, grid
from vae import VAE

# The batch is of each kind, pictures and edits.
BATCH, SEED, WARM, POOL = 32, 2, 200, 20_000
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
        self.text_encoder = TextEncoder(**TEXT_ENCODER, trained=TRAINED)
        self.transformer = Transformer(**TRANSFORMER)
        self.leave_unused()

    def leave_unused(self) -> None:
        """Latents that are not used are neither looked at nor changed."""
        with torch.no_grad():
            self.transformer.x_embedder.weight[:, latents.CARRYING :] = 0
            self.transformer.proj_out.weight[latents.CARRYING :] = 0

    def forward(
        self, noisy: Tensor, sigma: Tensor, ids: Tensor, mask: Tensor, seen: Tensor | None
    ) -> Tensor:
        side, count = SIDE // 16, noisy.shape[1]
        places = grid(side, side)
        if seen is not None:
            noisy, places = torch.cat([noisy, seen], 1), torch.cat([places, grid(side, side, 10)])
        return self.transformer(noisy, self.text_encoder(ids, mask), sigma, places)[:, :count]


class Pool(NamedTuple):
    """Samples: normalised latents, tokens, masks, and for edits the latents before."""

    clean: Tensor
    ids: Tensor
    mask: Tensor
    seen: Tensor | None


def pools(vae: VAE, count: int, seed: int) -> list[Pool]:
    """So many pictures and so many edits; sets the VAE's statistics."""
    rng, coder = np.random.default_rng(seed), words.train()
    samples = [prompts.sample(rng) for _ in range(count)]
    changes = [edits.sample(rng) for _ in range(count)]
    seeds = rng.integers(2**32, size=count)
    packed = _packed(vae, [draw(scene, rng) for _, scene, _ in samples])
    latents.measure(vae, packed)
    # The same is left to chance before and after an edit.
    chances = [[np.random.default_rng(seed) for seed in seeds] for _ in range(2)]
    before = _packed(vae, [draw(c.before, by) for c, by in zip(changes, chances[0], strict=True)])
    after = _packed(vae, [draw(c.after, by) for c, by in zip(changes, chances[1], strict=True)])
    made: list[Pool] = []
    for clean, seen, texts in (
        (packed, None, [prompt for prompt, _, _ in samples]),
        (after, before, [change.prompt for change in changes]),
    ):
        ids, mask = (torch.from_numpy(array) for array in words.encode(coder, texts))
        looked = None if seen is None else latents.normalise(vae, seen)
        made.append(Pool(latents.normalise(vae, clean), ids, mask, looked))
    return made


def _packed(vae: VAE, pictures: list[np.ndarray]) -> Tensor:
    return latents.encode(vae, torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2))


def loss_of(model: Model, pool: Pool) -> Tensor:
    chosen = torch.randint(len(pool.clean), (BATCH,))
    clean = pool.clean[chosen]
    noise = torch.randn_like(clean)
    sigma = shifted(torch.rand(len(clean)))
    part = sigma[:, None, None]
    noisy = (1 - part) * clean + part * noise
    seen = None if pool.seen is None else pool.seen[chosen]
    velocity = model(noisy, sigma, pool.ids[chosen], pool.mask[chosen], seen)
    return (velocity - (noise - clean))[..., : latents.CARRYING].square().mean()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--begin", type=Path, help="what this script saved, to go on from")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--steps", type=int, default=4500)
    parser.add_argument("--pool", type=int, default=POOL)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(given.seed)
    vae = VAE()
    vae.load_state_dict(torch.load(given.vae))
    samples = pools(vae, given.pool, given.seed)
    model = Model()
    if given.begin:
        model.load_state_dict(torch.load(given.begin)["model"])
    slow = copy.deepcopy(model).requires_grad_(False)
    trained = [array for array in model.parameters() if array.requires_grad]
    optimiser = torch.optim.AdamW(trained, given.rate, (0.9, 0.99), weight_decay=0.01)
    began = time.monotonic()
    for step in range(given.steps):
        rate = given.rate * min(1.0, (step + 1) / WARM)
        rate *= 0.02 + 0.98 * (1 + math.cos(math.pi * step / given.steps)) / 2
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.zero_grad(set_to_none=True)
        losses = [loss_of(model, pool) for pool in samples]
        sum(losses).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        model.leave_unused()
        decay = min(DECAY, (step + 1) / (step + 10))
        for old, new in zip(slow.parameters(), model.parameters(), strict=True):
            old.lerp_(new, 1 - decay)
        if step % 50 == 0 or step == given.steps - 1:
            shown = " ".join(f"{loss:.4f}" for loss in losses)
            print(f"{step} {time.monotonic() - began:.0f}s losses {shown}", flush=True)
        if step % 250 == 249 or step == given.steps - 1:
            torch.save({"vae": vae.state_dict(), "model": slow.state_dict()}, given.out)


if __name__ == "__main__":
    main()
