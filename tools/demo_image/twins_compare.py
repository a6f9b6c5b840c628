"""Compares what `twins_write.py` wrote with what mflux makes of it (exo's environment)."""

from __future__ import annotations

import sys
from pathlib import Path

import mlx.core as mx
import sizes
from mflux.models.common.config.model_config import ModelConfig
from mflux.models.flux2.model.flux2_text_encoder.prompt_encoder import Flux2PromptEncoder
from mflux.models.flux2.model.flux2_text_encoder.qwen3_text_encoder import Qwen3TextEncoder
from mflux.models.flux2.model.flux2_transformer.transformer import Flux2Transformer
from mflux.models.flux2.model.flux2_vae.vae import Flux2VAE
from mlx import nn
from mlx.utils import tree_flatten, tree_unflatten

MOST = 1e-4
_GROUPS = 4
# Not weights, but computed: the export writes it.
_COMPUTED = {"rotary_emb.inv_freq"}


def loaded(module: nn.Module, file: Path) -> nn.Module:
    weights = mx.load(str(file))
    shapes = {name: array.shape for name, array in tree_flatten(module.parameters())}
    if differ := (shapes.keys() ^ weights.keys()) - _COMPUTED:
        raise SystemExit(f"{file.name}: names differ: {sorted(differ)}")
    module.update(tree_unflatten(list(weights.items())))
    return module


def main(folder: Path) -> int:
    ModelConfig.precision = mx.float32
    vae = loaded(Flux2VAE(), folder / "vae.safetensors")
    for part in vae.modules():
        if isinstance(part, nn.GroupNorm):
            part.num_groups = _GROUPS
    text = loaded(Qwen3TextEncoder(**sizes.TEXT_ENCODER), folder / "text_encoder.safetensors")
    transformer = loaded(Flux2Transformer(**sizes.TRANSFORMER), folder / "transformer.safetensors")
    seen = mx.load(str(folder / "seen.safetensors"))
    made = {
        "latents": vae.encode(seen["picture"]),
        "decoded": vae.decode(seen["latents"]),
        "words": text.get_prompt_embeds(seen["ids"], seen["mask"]),
        "velocity": transformer(
            hidden_states=seen["noisy"],
            encoder_hidden_states=seen["words"],
            timestep=mx.array(700.0),
            img_ids=seen["places"],
            txt_ids=Flux2PromptEncoder.prepare_text_ids(seen["words"]),
        ),
    }
    far = {name: mx.abs(array - seen[name]).max().item() for name, array in made.items()}
    for name, most in far.items():
        print(f"{name}: {most:.1e} apart at most")
    return 0 if max(far.values()) < MOST else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
