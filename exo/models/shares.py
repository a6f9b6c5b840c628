"""Into how many equal shares the layers of a model may be split, by its `config.json` alone.

Split by tensors, every node has a part of each layer: some of its attention heads, and a slice of
its feed-forward width. mlx-lm knows how for some architectures; what it would do wrong, or only
refuse once the weights are read, is said here beforehand, where there is no MLX. A test compares
the list with mlx-lm's.
"""

from collections.abc import Mapping
from typing import Any, cast

from pydantic import BaseModel, ConfigDict

Config = Mapping[str, Any]

# Model types that mlx-lm can split, by how their keys and values are kept: each node those of its
# own heads, or every node a latent form of all.
_BY_HEADS = frozenset(
    {
        "deepseek_v2",
        "exaone_moe",
        "glm4_moe",
        "gpt_oss",
        "iquestcoder",
        "iquestloopcoder",
        "llama",
        "minimax",
        "minimax_m2",
        "minimax_m3_vl",
        "ministral3",
        "mistral",
        "qwen2",
        "qwen3",
        "qwen3_5",
        "qwen3_5_moe",
        "qwen3_moe",
        "solar_open",
        "step3p5",
        "xverse",
    }
)
_LATENT = frozenset(
    {
        "deepseek_v3",
        "deepseek_v32",
        "deepseek_v41",
        "deepseek_v41_text",
        "glm4_moe_lite",
        "glm_moe_dsa",
        "joyai_llm_flash",
        "kimi_k2",
        "kimi_k25",
        "kimi_k3",
        "longcat_flash",
        "longcat_flash_ngram",
        "mistral4",
    }
)
# Its keys and values are of its heads, but its projections to them are not split by these.
_NO_KV_HEADS = _LATENT | {"deepseek_v2"}
# Its head is split as well, unless it is the embedding.
_SPLIT_HEAD = frozenset({"qwen3_5", "qwen3_5_moe"})

_HEADS = {
    "num_attention_heads": "attention heads",
    "num_key_value_heads": "key-value heads",
    "num_attention_groups": "key-value heads",
    "linear_num_key_heads": "linear attention's key heads",
    "linear_num_value_heads": "linear attention's value heads",
    "o_groups": "output groups",
}
_NESTED = {
    "attention_other_setting": {
        "num_attention_heads": "attention heads of some layers",
        "num_attention_groups": "key-value heads of some layers",
    },
    "linear_attn_config": {"num_heads": "linear attention's heads"},
}
_WIDTHS = {
    "intermediate_size": "feed-forward width",
    "dense_intermediate_size": "dense layers' width",
    "ffn_hidden_size": "feed-forward width",
    "moe_intermediate_size": "experts' width",
    "expert_ffn_hidden_size": "experts' width",
    "shared_intermediate_size": "shared expert's width",
    "shared_expert_intermediate_size": "shared expert's width",
    "share_expert_dim": "shared expert's width",
}


class Shares(BaseModel):
    """What every node must get an equal part of: how many there are, by what they are. With
    `latent`, the keys and values are on every node as a whole."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    parts: dict[str, int]
    latent: bool = False

    def obstacle(self, nodes: int) -> str | None:
        """Why the layers cannot be split over so many nodes, such as "8 key-value heads are not
        divided by 3"; None if they can."""
        for what, number in self.parts.items():
            if number % nodes:
                return f"{number} {what} cannot be divided by {nodes}"
        return None


def shares(config: Config) -> Shares | None:
    """What is split of a model with this `config.json`; None if mlx-lm cannot split it."""
    kind = str(config.get("model_type", ""))
    if kind not in _BY_HEADS | _LATENT:
        return None
    text = {**config, **_part(config, "text_config")}
    return Shares(parts=dict(_parts(kind, text)), latent=kind in _LATENT)


def _parts(kind: str, config: Config) -> list[tuple[str, int]]:
    group = _part(config, "quantization").get("group_size") or 1
    unit = "" if group == 1 else f", in groups of {group},"
    found: list[tuple[str, int]] = []
    for key, what in _HEADS.items():
        if key != "num_key_value_heads" or kind not in _NO_KV_HEADS:
            found += _numbers(config, key, what)
    for name, keys in _NESTED.items():
        for key, what in keys.items():
            found += _numbers(_part(config, name), key, what)
    for key, what in _WIDTHS.items():
        found += [(n, of // group) for n, of in _numbers(config, key, f"of the {what}{unit}")]
    heads, size = config.get("num_attention_heads"), _head_size(config)
    if group > 1 and isinstance(heads, int) and size:
        found.append((f"of the attention's width{unit}", heads * size // group))
    if kind in _SPLIT_HEAD and not config.get("tie_word_embeddings"):
        found += _numbers(config, "vocab_size", "tokens of the vocabulary")
    return found


def _head_size(config: Config) -> int:
    """Numbers that one head gives to the output projection."""
    given = config.get("v_head_dim") or config.get("head_dim")
    if isinstance(given, int):
        return given
    hidden, heads = config.get("hidden_size"), config.get("num_attention_heads")
    return hidden // heads if isinstance(hidden, int) and isinstance(heads, int) and heads else 0


def _numbers(config: Config, key: str, what: str) -> list[tuple[str, int]]:
    value = config.get(key)
    return [(what, value)] if isinstance(value, int) and value > 0 else []


def _part(config: Config, name: str) -> Config:
    part = config.get(name)
    return cast("Config", part) if isinstance(part, Mapping) else {}
