"""Tiny random encoders in the hub's layout, of every family that exo knows."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from exo.models.encoder_names import sources
from exo.models.encoder_shape import encoder_shape

HIDDEN, LAYERS, HEADS, WIDTH, WORDS, LONGEST = 64, 3, 4, 96, 300, 180
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
_BERT = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": WIDTH,
    "max_position_embeddings": LONGEST,
    "layer_norm_eps": 1e-6,
    "hidden_act": "gelu",
    "type_vocab_size": 2,
    "pad_token_id": 0,
}
_ROBERTA = {
    **_BERT,
    "max_position_embeddings": LONGEST + 2,
    "pad_token_id": 1,
    "type_vocab_size": 1,
}
# What each family's config.json says, `model_type` and `vocab_size` aside.
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": _BERT,
    "camembert": _ROBERTA,
    "distilbert": {
        "dim": HIDDEN,
        "n_layers": LAYERS,
        "n_heads": HEADS,
        "hidden_dim": WIDTH,
        "max_position_embeddings": LONGEST,
        "activation": "gelu",
        "pad_token_id": 0,
    },
    "gte": {**_BERT, "rope_parameters": {"rope_type": "default", "rope_theta": 20000.0}},
    "modernbert": {
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": WIDTH,
        "max_position_embeddings": LONGEST,
        "local_attention": 32,
        "global_attn_every_n_layers": 2,
        "global_rope_theta": 160000.0,
        "local_rope_theta": 10000.0,
        "hidden_activation": "gelu",
        "pad_token_id": 0,
        "bos_token_id": 2,
        "cls_token_id": 2,
        "eos_token_id": 3,
        "sep_token_id": 3,
    },
    "mpnet": {**_ROBERTA, "relative_attention_num_buckets": 32},
    "nomic_bert": {
        "n_embd": HIDDEN,
        "n_layer": LAYERS,
        "n_head": HEADS,
        "n_inner": WIDTH,
        "n_positions": LONGEST,
        "layer_norm_epsilon": 1e-12,
        "rotary_emb_base": 1000,
        "rotary_emb_fraction": 1.0,
        "activation_function": "swiglu",
        "qkv_proj_bias": False,
        "type_vocab_size": 2,
    },
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
}


def make_encoder(
    folder: Path,
    family: str = "bert",
    *,
    prefix: str = "",
    dtype: mx.Dtype = mx.float32,
    seed: int = 0,
    **config: Any,
) -> Path:
    """An encoder's folder; `config` is added to what its configuration says. Its tensors' names
    have the `prefix` that a model with a head gives them."""
    folder.mkdir(parents=True)
    whole = {"model_type": family, "vocab_size": WORDS, **FAMILIES[family], **config}
    (folder / "config.json").write_text(json.dumps(whole, indent=2))
    weights = random_weights(family, whole, seed)
    mx.save_safetensors(
        str(folder / "model.safetensors"),
        {prefix + name: mx.array(value).astype(dtype) for name, value in weights.items()},
        metadata={"format": "pt"},
    )
    _save_tokenizer(folder)
    return folder


def random_weights(family: str, config: dict[str, Any], seed: int) -> dict[str, Any]:
    """The same numbers on every machine, by the names that the hub's files have."""
    random = np.random.default_rng(seed)
    found: dict[str, Any] = {}
    for pieces in sources(family, encoder_shape(config)).values():
        for name, shape in pieces:
            values = random.standard_normal(shape, np.float32)
            if name.endswith(".bias"):
                found[name] = values * 0.1
            elif len(shape) == 1:
                found[name] = 1 + values * 0.1
            else:
                found[name] = values * (0.5 if "embeddings" in name else 0.15)
    return found


def say_pooling(folder: Path, *names: str, normalize: bool = True, **settings: Any) -> Path:
    """Write what sentence-transformers says of how states become a vector."""
    kinds = ["Transformer", "Pooling", *(["Normalize"] if normalize else [])]
    modules = [
        {"type": f"sentence_transformers.models.{kind}", "path": f"{at}_{kind}" if at else ""}
        for at, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    modes = {f"pooling_mode_{name}": True for name in names}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({**modes, **settings}))
    return folder


def _save_tokenizer(folder: Path) -> None:
    """Whole words; [CLS] and [SEP] are put around a text. As in many of the hub's files, it says
    that texts be cut and filled up, which is the asker's to decide."""
    words = [*_SPECIAL, *(f"w{number}" for number in range(WORDS - len(_SPECIAL)))]
    ids = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.add_special_tokens(_SPECIAL)
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(folder / "tokenizer.json"))
