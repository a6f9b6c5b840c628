"""Writes random weights of the twins, and what they make of random inputs (torch's environment)."""

from __future__ import annotations

import sys
from pathlib import Path

import sizes
import torch
from export import in_mlx_order
from safetensors.torch import save_file
from text_encoder import TextEncoder
from torch import Tensor
from transformer import Transformer, grid
from vae import VAE


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    vae = VAE()
    text_encoder = TextEncoder(**sizes.TEXT_ENCODER)
    transformer = Transformer(**sizes.TRANSFORMER)
    picture, noisy = torch.randn(1, 3, 64, 64), torch.randn(2, 32, 128)
    ids, mask = torch.randint(0, sizes.VOCABULARY, (2, sizes.LENGTH)), torch.ones(2, sizes.LENGTH)
    mask[0, 20:] = 0
    places = torch.cat([grid(4, 4), grid(4, 4, 10)])  # With a reference image beside the picture.
    with torch.no_grad():
        latents = vae.encode(picture)[0]
        words = text_encoder(ids, mask)
        velocity = transformer(noisy, words, torch.full((2,), 0.7), places)
        decoded = vae.decode(latents)
    for name, module in (("vae", vae), ("text_encoder", text_encoder), ("transformer", transformer)):  # fmt: skip  # noqa: E501
        weights = {key: in_mlx_order(array) for key, array in module.state_dict().items()}
        save_file(weights, str(folder / f"{name}.safetensors"))
    seen: dict[str, Tensor] = {
        "picture": picture, "latents": latents, "decoded": decoded,
        "ids": ids, "mask": mask.long(), "words": words,
        "noisy": noisy, "places": places.long(), "velocity": velocity,
    }  # fmt: skip
    save_file({name: array.contiguous() for name, array in seen.items()}, str(folder / "seen.safetensors"))  # fmt: skip  # noqa: E501


if __name__ == "__main__":
    main(Path(sys.argv[1]))
