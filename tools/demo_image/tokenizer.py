"""The prompts' tokenizer, in the form that FLUX.2's loader takes."""

from __future__ import annotations

import json
from pathlib import Path

import edits
import numpy as np
import prompts
from sizes import LENGTH, VOCABULARY
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
# What mflux makes of a prompt before it is read: nothing but the prompt.
TEMPLATE = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
# As the class of Qwen's tokenizers splits words, whatever the file says.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_COUNT, _SEED = 4000, 11


def train() -> Tokenizer:
    rng = np.random.default_rng(_SEED)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = [prompts.sample(rng)[0] for _ in range(_COUNT)]
    texts += [edits.sample(rng).prompt for _ in range(_COUNT)]
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and mask, (n, LENGTH) int64, as mflux makes them of prompts."""
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding(length=LENGTH, pad_id=0, pad_token=SPECIAL[0])
    coded = tokenizer.encode_batch([text + SPECIAL[2] for text in texts])
    return np.array([c.ids for c in coded]), np.array([c.attention_mask for c in coded])


def save(tokenizer: Tokenizer, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    model = json.loads(tokenizer.to_str())["model"]
    merges = [" ".join(pair) for pair in model["merges"]]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    flags = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "added_tokens_decoder": {
            str(number): {"content": token, "special": True, **flags}
            for number, token in enumerate(SPECIAL)
        },
        "eos_token": SPECIAL[2],
        "pad_token": SPECIAL[0],
        "model_max_length": LENGTH,
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
