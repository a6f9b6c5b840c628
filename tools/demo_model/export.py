"""Writes a trained model as a folder that mlx-lm loads."""

from __future__ import annotations

import json
from pathlib import Path

import tokenizer as tokens
import torch
from model import Llama
from render import END, PAD
from safetensors.torch import save_file
from tokenizers import Tokenizer

LIMIT = 10_000_000


def save(model: Llama, tokenizer: Tokenizer, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    weights = {n: w.detach().to(torch.float16).contiguous() for n, w in model.state_dict().items()}
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "mlx"})
    # safetensors makes the file private; it is to be shipped.
    (folder / "model.safetensors").chmod(0o644)
    eos, pad = tokens.id_of(tokenizer, END), tokens.id_of(tokenizer, PAD)
    _write(folder / "config.json", model.shape.config(eos, pad))
    _write(
        folder / "generation_config.json",
        # So small a model is at its best when it says what it is surest of.
        {"eos_token_id": [eos, pad], "pad_token_id": pad, "temperature": 0.2},
    )
    tokens.save(tokenizer, folder, model.shape.max_position_embeddings)
    size = sum(f.stat().st_size for f in folder.iterdir())
    if size >= LIMIT:
        raise ValueError(f"the model takes {size} bytes, more than {LIMIT}")


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
