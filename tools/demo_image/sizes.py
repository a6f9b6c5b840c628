"""The model's sizes, as `exo.json` says them."""

from __future__ import annotations

LENGTH = 32
VOCABULARY = 448
TEXT_ENCODER = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 27,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "head_dim": 16,
}
TRANSFORMER = {
    "num_layers": 2,
    "num_single_layers": 4,
    "num_attention_heads": 4,
    "attention_head_dim": 32,
    "joint_attention_dim": 3 * TEXT_ENCODER["hidden_size"],
    "axes_dims_rope": (8, 8, 8, 8),
}
