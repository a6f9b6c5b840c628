"""Writes a trained model as a folder in mflux's layout."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import sizes
import tokenizer
import torch
from pictures import SIDE
from safetensors.torch import save_file
from torch import Tensor
from train import STEPS, Model
from vae import GROUPS

_SAID = {"quantization_level": "None", "mflux_version": "0.24.0"}


def export(trained: Path, folder: Path) -> None:
    """trained: what `train.py` saved. The folder is made; files in it are written over."""
    state = torch.load(trained)
    model = Model()
    model.load_state_dict(state["model"])
    text = dict(model.text_encoder.state_dict())
    text["rotary_emb.inv_freq"] = model.text_encoder.speeds
    _write(folder / "text_encoder", text)
    _write(folder / "transformer", dict(model.transformer.state_dict()))
    _write(folder / "vae", {name: in_mlx_order(array) for name, array in state["vae"].items()})
    tokenizer.save(tokenizer.train(), folder / "tokenizer")
    said = {
        "format": 1,
        "variant": "flux.2-klein-4b",
        "max_sequence_length": sizes.LENGTH,
        "transformer_overrides": sizes.TRANSFORMER,
        "text_encoder_overrides": sizes.TEXT_ENCODER,
        "vae_norm_groups": GROUPS,
        "traits": {
            "size": SIDE,
            "min_side": SIDE,
            "max_side": SIDE,
            "max_pixels": SIDE * SIDE,
            "steps": STEPS,
            "edits": 1,
            "qualities": {"low": STEPS // 2, "medium": STEPS, "high": STEPS * 2},
        },
    }
    (folder / "exo.json").write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")


def in_mlx_order(array: Tensor) -> Tensor:
    """Convolutions in MLX's order of axes."""
    return array.permute(0, 2, 3, 1).contiguous() if array.ndim == 4 else array


def _write(folder: Path, arrays: dict[str, Tensor]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    # The speeds of the rotary embedding and the statistics are not weights: they stay as they are.
    exact = ("rotary_emb.inv_freq", "bn.running_mean", "bn.running_var")
    kept = {
        name: (array if name in exact else array.to(torch.bfloat16)).contiguous()
        for name, array in arrays.items()
    }
    save_file(kept, str(folder / "0.safetensors"), _SAID)
    index = {"metadata": _SAID, "weight_map": dict.fromkeys(sorted(kept), "0.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("trained", type=Path)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    export(given.trained, given.folder)
