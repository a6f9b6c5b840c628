"""The model's sizes, as `exo.json` says them."""

from __future__ import annotations

LENGTH = 32
VOCABULARY = 512
TEXT_ENCODER = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 27,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "head_dim": 16,
}
# The layers of the text encoder that compute something, counted from 1. The transformer reads what
# comes out of layers 9, 18 and 27; all others hand on what they get, since so little is to be read.
TRAINED = (1, 2, 10, 11, 19)
TRANSFORMER = {
    "num_layers": 2,
    "num_single_layers": 4,
    "num_attention_heads": 4,
    "attention_head_dim": 32,
    "joint_attention_dim": 3 * TEXT_ENCODER["hidden_size"],
    "axes_dims_rope": (8, 8, 8, 8),
}
