"""Which tensors an encoder is made of: exo's names for them, and those of the hub's files.

Every family has the same parts under other names; what is one matrix here (queries, keys and values
say) may be several there.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from exo.models.encoder_shape import EncoderShape

Rows = tuple[int, ...]


class Piece(NamedTuple):
    """A tensor of a file: its name without the model's prefix, and its shape."""

    name: str
    shape: Rows


# By exo's name of a tensor, the pieces that it is put together of, in the order of their rows.
Sources = dict[str, tuple[Piece, ...]]


class _Names(NamedTuple):
    """The names of one family. `whole` are parts of the model, `parts` those of each layer, which
    `layer` is put before, with its number."""

    whole: Mapping[str, str]
    layer: str
    parts: Mapping[str, tuple[str, ...]]


_BERT = _Names(
    {
        "words": "embeddings.word_embeddings",
        "places": "embeddings.position_embeddings",
        "types": "embeddings.token_type_embeddings",
        "norm": "embeddings.LayerNorm",
    },
    "encoder.layer.{}.",
    {
        "qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
        "out": ("attention.output.dense",),
        "attention_norm": ("attention.output.LayerNorm",),
        "up": ("intermediate.dense",),
        "down": ("output.dense",),
        "norm": ("output.LayerNorm",),
    },
)
_MPNET = _Names(
    {**_BERT.whole, "distances": "encoder.relative_attention_bias"},
    _BERT.layer,
    {
        **_BERT.parts,
        "qkv": ("attention.attn.q", "attention.attn.k", "attention.attn.v"),
        "out": ("attention.attn.o",),
        "attention_norm": ("attention.LayerNorm",),
    },
)
_DISTILBERT = _Names(
    _BERT.whole,
    "transformer.layer.{}.",
    {
        "qkv": ("attention.q_lin", "attention.k_lin", "attention.v_lin"),
        "out": ("attention.out_lin",),
        "attention_norm": ("sa_layer_norm",),
        "up": ("ffn.lin1",),
        "down": ("ffn.lin2",),
        "norm": ("output_layer_norm",),
    },
)
_NOMIC = _Names(
    {**_BERT.whole, "norm": "emb_ln"},
    "encoder.layers.{}.",
    {
        "qkv": ("attn.Wqkv",),
        "out": ("attn.out_proj",),
        "attention_norm": ("norm1",),
        "up": ("mlp.fc12", "mlp.fc11"),
        "down": ("mlp.fc2",),
        "norm": ("norm2",),
    },
)
_GTE = _Names(
    _BERT.whole,
    "encoder.layer.{}.",
    {
        "qkv": ("attention.qkv_proj",),
        "out": ("attention.o_proj",),
        "attention_norm": ("attn_ln",),
        "up": ("mlp.up_gate_proj",),
        "down": ("mlp.down_proj",),
        "norm": ("mlp_ln",),
    },
)
_MODERNBERT = _Names(
    {
        "words": "embeddings.tok_embeddings",
        "norm": "embeddings.norm",
        "last_norm": "final_norm",
    },
    "layers.{}.",
    {
        "qkv": ("attn.Wqkv",),
        "out": ("attn.Wo",),
        "attention_norm": ("attn_norm",),
        "up": ("mlp.Wi",),
        "down": ("mlp.Wo",),
        "norm": ("mlp_norm",),
    },
)
_FAMILIES = {
    "bert": _BERT,
    "camembert": _BERT,
    "distilbert": _DISTILBERT,
    "gte": _GTE,
    "modernbert": _MODERNBERT,
    "mpnet": _MPNET,
    "new": _GTE,
    "nomic_bert": _NOMIC,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
}


def sources(family: str, shape: EncoderShape) -> Sources:
    """What each tensor of an encoder is made of."""
    names = _FAMILIES[family]
    found: Sources = {}
    for part, size, bias in _whole(shape):
        found |= _pieces(part, (names.whole[part],), size, bias=bias)
    for number in range(shape.layers):
        before = names.layer.format(number)
        for part, size, bias in _layer(shape):
            if number == 0 and shape.norm_first and part == "attention_norm":
                continue  # The embedding's norm is just before it.
            theirs = tuple(before + name for name in names.parts[part])
            found |= _pieces(f"layers.{number}.{part}", theirs, size, bias=bias)
    return found


def _pieces(part: str, theirs: tuple[str, ...], size: Rows, *, bias: bool) -> Sources:
    rows = size[0] // len(theirs)
    found = {f"{part}.weight": tuple(Piece(f"{name}.weight", (rows, *size[1:])) for name in theirs)}
    if bias:
        found[f"{part}.bias"] = tuple(Piece(f"{name}.bias", (rows,)) for name in theirs)
    return found


def _whole(shape: EncoderShape) -> Iterator[tuple[str, Rows, bool]]:
    """The parts beside the layers: name, shape, and whether there is a bias."""
    yield "words", (shape.vocab_size, shape.hidden), False
    if shape.positions:
        yield "places", (shape.positions, shape.hidden), False
    if shape.types:
        yield "types", (shape.types, shape.hidden), False
    if shape.buckets:
        yield "distances", (shape.buckets, shape.heads), False
    yield "norm", (shape.hidden,), shape.norm_bias
    if shape.norm_first:
        yield "last_norm", (shape.hidden,), shape.norm_bias


def _layer(shape: EncoderShape) -> Iterator[tuple[str, Rows, bool]]:
    """The parts of a layer, as those of the whole."""
    hidden, up = shape.hidden, shape.width * (2 if shape.gated else 1)
    yield "qkv", (3 * hidden, hidden), shape.attention_bias
    yield "out", (hidden, hidden), shape.attention_bias
    yield "attention_norm", (hidden,), shape.norm_bias
    yield "up", (up, hidden), shape.up_bias
    yield "down", (hidden, shape.width), shape.down_bias
    yield "norm", (hidden,), shape.norm_bias
