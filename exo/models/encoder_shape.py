"""What an encoder is like, by its `config.json` alone.

One shape holds for all families: they differ in how positions are told apart, in where the norms
stand, and in what the feed-forward part multiplies.

bert          Devlin et al. 2018, arXiv:1810.04805
roberta       Liu et al. 2019, arXiv:1907.11692 (xlm-roberta, camembert: the same)
distilbert    Sanh et al. 2019, arXiv:1910.01108
mpnet         Song et al. 2020, arXiv:2004.09297
nomic_bert    Nussbaum et al. 2024, arXiv:2402.01613
gte           Zhang et al. 2024, arXiv:2407.19669
modernbert    Warner et al. 2024, arXiv:2412.13663
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from exo.errors import ModelInvalid
from exo.models.json_files import as_dict

Config = Mapping[str, Any]
Activation = Literal["gelu", "gelu_tanh", "silu", "relu"]
_ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swiglu": "silu",
    "swish": "silu",
}


@dataclass(frozen=True)
class EncoderShape:
    """An encoder. `width` is that of its feed-forward part, `context` how many tokens a text has at
    most.

    A token's position is told by a table of `positions` rows, of which `first` is that of the first
    token, by rotation of queries and keys (`thetas`, one for each layer), or by a bias for each of
    `buckets` distances. A layer may see only so many tokens to each side (`windows`; None: all).
    `types` is how many kinds of text there are; all are of the first. With `gated`, what is
    activated multiplies a second product, which lies first in the files if `gate_last`. With
    `norm_first`, norms stand before each part and one at the end, else behind each part.
    """

    vocab_size: int
    hidden: int
    layers: int
    heads: int
    width: int
    epsilon: float
    context: int
    activation: Activation = "gelu"
    positions: int = 0
    first: int = 0
    types: int = 0
    thetas: tuple[float, ...] = ()
    windows: tuple[int | None, ...] = ()
    buckets: int = 0
    gated: bool = False
    gate_last: bool = False
    norm_first: bool = False
    attention_bias: bool = True
    up_bias: bool = True
    down_bias: bool = True
    norm_bias: bool = True

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads


def is_encoder(config: Config) -> bool:
    """Whether a model with this `config.json` is an encoder that is known."""
    return config.get("model_type") in _READERS


def encoder_shape(config: Config) -> EncoderShape:
    """The shape of an encoder that is known.

    Raises:
        ModelInvalid: the configuration lacks something, or asks for what is not supported.
    """
    kind = str(config["model_type"])
    try:
        shape = _READERS[kind](config)
    except KeyError as error:
        raise ModelInvalid(f"config.json of this {kind} model has no {error}.") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise ModelInvalid(f"config.json of this {kind} model is damaged: {error}.") from error
    numbers = (shape.vocab_size, shape.hidden, shape.layers, shape.heads, shape.width)
    if min(numbers) < 1 or shape.context < 1 or shape.hidden % shape.heads:
        raise ModelInvalid(f"config.json of this {kind} model has numbers that fit no model.")
    if shape.thetas and shape.head_dim % 2:
        raise ModelInvalid(f"The heads of this {kind} model cannot be rotated: their size is odd.")
    return shape


def _refuse(config: Config, **right: object) -> None:
    """See that settings are as they are known here, where they are given."""
    for name, value in right.items():
        given = config.get(name)
        if given is not None and given != value:
            raise ModelInvalid(
                f"This {config['model_type']} model has {name} = {given!r}, which is not supported."
            )


def _activation(name: str) -> Activation:
    if name not in _ACTIVATIONS:
        raise ModelInvalid(f"This encoder is activated by {name}, which is not supported.")
    return _ACTIVATIONS[name]


def _bert(config: Config) -> EncoderShape:
    _refuse(config, position_embedding_type="absolute", is_decoder=False)
    positions = int(config["max_position_embeddings"])
    return EncoderShape(
        vocab_size=int(config["vocab_size"]),
        hidden=int(config["hidden_size"]),
        layers=int(config["num_hidden_layers"]),
        heads=int(config["num_attention_heads"]),
        width=int(config["intermediate_size"]),
        epsilon=float(config.get("layer_norm_eps", 1e-12)),
        context=positions,
        activation=_activation(str(config.get("hidden_act", "gelu"))),
        positions=positions,
        types=int(config.get("type_vocab_size", 2)),
    )


def _roberta(config: Config) -> EncoderShape:
    """The positions up to the padding's are of no token."""
    shape = _bert(config)
    pad = config.get("pad_token_id")
    first = (1 if pad is None else int(pad)) + 1
    return replace(shape, first=first, context=shape.positions - first)


def _mpnet(config: Config) -> EncoderShape:
    shape = _roberta({**config, "pad_token_id": 1})
    return replace(shape, types=0, buckets=int(config.get("relative_attention_num_buckets", 32)))


def _distilbert(config: Config) -> EncoderShape:
    positions = int(config["max_position_embeddings"])
    return EncoderShape(
        vocab_size=int(config["vocab_size"]),
        hidden=int(config["dim"]),
        layers=int(config["n_layers"]),
        heads=int(config["n_heads"]),
        width=int(config["hidden_dim"]),
        epsilon=1e-12,
        context=positions,
        activation=_activation(str(config.get("activation", "gelu"))),
        positions=positions,
    )


def _nomic(config: Config) -> EncoderShape:
    """With the hub's names of settings, or those of transformers."""

    def either(theirs: str, plain: str) -> Any:
        return config[theirs] if theirs in config else config[plain]

    _refuse(
        config,
        activation_function="swiglu",
        causal=False,
        mlp_fc1_bias=False,
        mlp_fc2_bias=False,
        num_experts=0,
        parallel_block=False,
        prenorm=False,
        qkv_proj_bias=False,
        rotary_emb_fraction=1.0,
        rotary_emb_interleaved=False,
        use_rms_norm=False,
    )
    _refuse({"model_type": "nomic_bert", "scaling": config.get("rotary_scaling_factor")}, scaling=1)
    layers = int(either("n_layer", "num_hidden_layers"))
    theta = config.get("rotary_emb_base") or _theta(config, 1000.0)
    hidden = int(either("n_embd", "hidden_size"))
    return EncoderShape(
        vocab_size=int(config["vocab_size"]),
        hidden=hidden,
        layers=layers,
        heads=int(either("n_head", "num_attention_heads")),
        width=int(config.get("n_inner") or config.get("intermediate_size") or 4 * hidden),
        epsilon=float(config.get("layer_norm_epsilon") or config.get("layer_norm_eps") or 1e-12),
        context=int(either("n_positions", "max_position_embeddings")),
        activation="silu",
        types=int(config.get("type_vocab_size", 2)),
        thetas=(float(theta),) * layers,
        gated=True,
        attention_bias=False,
        up_bias=False,
        down_bias=False,
    )


def _gte(config: Config) -> EncoderShape:
    _refuse(
        config,
        position_embedding_type="rope",
        layer_norm_type="layer_norm",
        pack_qkv=True,
        logn_attention_scale=False,
    )
    if config.get("rope_scaling") is not None:
        raise ModelInvalid("This gte model scales its rotation, which is not supported.")
    shape = _bert({**config, "position_embedding_type": None})
    return replace(
        shape,
        positions=0,
        types=int(config.get("type_vocab_size", 0)),
        thetas=(_theta(config, 160_000.0),) * shape.layers,
        gated=True,
        gate_last=True,
        up_bias=False,
    )


def _modernbert(config: Config) -> EncoderShape:
    layers = int(config["num_hidden_layers"])
    every = int(config.get("global_attn_every_n_layers") or 3)
    kinds = config.get("layer_types") or [
        "sliding_attention" if at % every else "full_attention" for at in range(layers)
    ]
    if len(kinds) != layers:
        raise ModelInvalid("config.json of this modernbert model is damaged: layer_types.")
    theta = {
        "full_attention": _theta(config, 160_000.0, "full_attention", "global_rope_theta"),
        "sliding_attention": _theta(config, 10_000.0, "sliding_attention", "local_rope_theta"),
    }
    half = int(config.get("local_attention") or 128) // 2
    up_bias = config.get("mlp_bias") is True
    return EncoderShape(
        vocab_size=int(config["vocab_size"]),
        hidden=int(config["hidden_size"]),
        layers=layers,
        heads=int(config["num_attention_heads"]),
        width=int(config["intermediate_size"]),
        epsilon=float(config.get("norm_eps", 1e-5)),
        context=int(config["max_position_embeddings"]),
        activation=_activation(str(config.get("hidden_activation", "gelu"))),
        thetas=tuple(theta[kind] for kind in kinds),
        windows=tuple(half if kind == "sliding_attention" else None for kind in kinds),
        gated=True,
        norm_first=True,
        attention_bias=config.get("attention_bias") is True,
        up_bias=up_bias,
        down_bias=up_bias,
        norm_bias=config.get("norm_bias") is True,
    )


def _theta(config: Config, default: float, kind: str = "", old_name: str = "rope_theta") -> float:
    """The base of the rotation: in `rope_parameters` (of a kind of layers), or by an older name."""
    found = as_dict(config.get("rope_parameters"))
    found = as_dict(found.get(kind)) or found
    if found.get("rope_type", "default") != "default":
        raise ModelInvalid(
            f"This {config['model_type']} model scales its rotation, which is not supported."
        )
    return float(found.get("rope_theta") or config.get(old_name) or default)


_READERS: dict[str, Callable[[Config], EncoderShape]] = {
    "bert": _bert,
    "camembert": _roberta,
    "distilbert": _distilbert,
    "gte": _gte,
    "modernbert": _modernbert,
    "mpnet": _mpnet,
    "new": _gte,
    "nomic_bert": _nomic,
    "roberta": _roberta,
    "xlm-roberta": _roberta,
}
ENCODERS = tuple(_READERS)
