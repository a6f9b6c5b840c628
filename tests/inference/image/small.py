"""mflux's models at a size that tests can pay for.

Only FLUX.2's classes can be told their size. Of the others a full-size module is made, which takes
no memory as long as nothing is evaluated, and its arrays, lengths and heads are replaced.
"""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any
from unittest.mock import patch

import mlx.core as mx
from mflux.models.common.config.model_config import ModelConfig
from mflux.models.flux import flux_initializer
from mflux.models.flux.model.flux_text_encoder.clip_encoder.clip_encoder import CLIPEncoder
from mflux.models.flux.model.flux_text_encoder.clip_encoder.clip_sdpa_attention import (
    CLIPSdpaAttention,
)
from mflux.models.flux.model.flux_text_encoder.t5_encoder.t5_encoder import T5Encoder
from mflux.models.flux.model.flux_transformer.ada_layer_norm_continuous import (
    AdaLayerNormContinuous,
)
from mflux.models.flux.model.flux_transformer.ada_layer_norm_zero import AdaLayerNormZero
from mflux.models.flux.model.flux_transformer.ada_layer_norm_zero_single import (
    AdaLayerNormZeroSingle,
)
from mflux.models.flux.model.flux_transformer.transformer import Transformer
from mflux.models.flux.model.flux_vae import vae as flux_vae
from mflux.models.flux2.model.flux2_vae.vae import Flux2VAE
from mflux.models.qwen import qwen_initializer
from mflux.models.qwen.model.qwen_text_encoder.qwen_encoder import QwenEncoder
from mflux.models.qwen.model.qwen_text_encoder.qwen_encoder_layer import QwenEncoderLayer
from mflux.models.qwen.model.qwen_text_encoder.qwen_rope import QwenRotaryEmbedding
from mflux.models.qwen.model.qwen_text_encoder.qwen_text_encoder import QwenTextEncoder
from mflux.models.qwen.model.qwen_text_encoder.qwen_vision_transformer import VisionTransformer
from mflux.models.qwen.model.qwen_transformer.qwen_rope import QwenEmbedRopeMLX
from mflux.models.qwen.model.qwen_transformer.qwen_transformer import QwenTransformer
from mflux.models.qwen.model.qwen_vae.qwen_image_rms_norm import QwenImageRMSNorm
from mflux.models.qwen.model.qwen_vae.qwen_vae import QwenVAE
from mflux.models.qwen.tokenizer.qwen_vision_language_processor import (
    QwenVisionLanguageProcessor,
)
from mflux.models.z_image import z_image_initializer
from mflux.models.z_image.model.z_image_text_encoder.text_encoder import TextEncoder
from mflux.models.z_image.model.z_image_transformer.transformer import ZImageTransformer
from mflux.models.z_image.model.z_image_vae import vae as z_image_vae
from mlx import nn
from mlx.utils import tree_flatten, tree_unflatten

from tests.inference.image.tokenizers import CLIP_SIZE, IMAGE_TOKEN, QWEN_SIZE, T5_SIZE

VAE_GROUPS = 4
_WIDTH, _HEAD, _HEADS = 64, 16, 4
_T5, _CLIP = 64, 64
_QWEN_TEXT = 256

Rename = Callable[[str, int], int]


def flux_transformer(
    model_config: ModelConfig, num_transformer_blocks: int, num_single_transformer_blocks: int
) -> Transformer:
    module = Transformer(model_config, num_transformer_blocks, num_single_transformer_blocks)
    sizes = {3072 * k: _WIDTH * k for k in (1, 2, 3, 4, 5, 6)} | {4096: _T5, 768: _CLIP}
    _resize(module, lambda name, n: _HEAD if n == 128 and "norm" in name else sizes.get(n, n))
    for part in module.modules():
        if hasattr(part, "head_dimension"):
            part.num_heads, part.head_dimension = _HEADS, _HEAD
        if isinstance(part, nn.LayerNorm):
            part.dims = _WIDTH
        if isinstance(part, AdaLayerNormContinuous):
            part.embedding_dim = _WIDTH
        if isinstance(part, AdaLayerNormZeroSingle):
            part.dim = _WIDTH
    module.pos_embed.axes_dim = [4, 6, 6]
    return module


def t5_encoder() -> T5Encoder:
    module = T5Encoder()
    module.t5_blocks = module.t5_blocks[:2]

    def size(name: str, n: int) -> int:
        if n == 4096 and ("SelfAttention" not in name):
            return _T5
        return {32128: T5_SIZE, 10240: 64}.get(n, n)

    _resize(module, size)
    # The attention's inside has a size that is written in its code.
    for block in module.t5_blocks:
        inside = block.attention.SelfAttention
        for part, shape in (("q", (4096, _T5)), ("k", (4096, _T5)), ("v", (4096, _T5)), ("o", (_T5, 4096))):  # fmt: skip  # noqa: E501
            getattr(inside, part).weight = mx.zeros(shape)
    return module


def clip_encoder() -> CLIPEncoder:
    module = CLIPEncoder()
    module.text_model.encoder.layers = module.text_model.encoder.layers[:2]
    sizes = {768: _CLIP, 3072: 64, 49408: CLIP_SIZE}
    _resize(module, lambda _, n: sizes.get(n, n))
    for part in module.modules():
        if isinstance(part, CLIPSdpaAttention):
            part.num_heads, part.head_dimension = 4, 16
        if isinstance(part, nn.LayerNorm):
            part.dims = _CLIP
    return module


def vae(kind: type[nn.Module]) -> nn.Module:
    """One of the three that are built alike."""
    module = kind()
    sizes = {128: 8, 256: 8, 512: 16}
    _resize(module, lambda name, n: n if name.startswith("bn.") else sizes.get(n, n))
    for part in module.modules():
        if isinstance(part, nn.GroupNorm):
            part.num_groups = VAE_GROUPS
    return module


def qwen_transformer(**given: Any) -> QwenTransformer:
    module = QwenTransformer(
        num_layers=2,
        attention_head_dim=_HEAD,
        num_attention_heads=_HEADS,
        joint_attention_dim=_QWEN_TEXT,
        **given,
    )
    module.pos_embed = QwenEmbedRopeMLX(theta=10000, axes_dim=[4, 6, 6], scale_rope=True)
    return module


def qwen_text_encoder() -> QwenTextEncoder:
    module = QwenTextEncoder()
    encoder = QwenEncoder(vocab_size=QWEN_SIZE, hidden_size=_QWEN_TEXT, num_hidden_layers=0)
    encoder.layers = [
        QwenEncoderLayer(
            hidden_size=_QWEN_TEXT,
            num_attention_heads=2,
            num_key_value_heads=1,
            intermediate_size=64,
        )
        for _ in range(2)
    ]
    encoder.rotary_emb = QwenRotaryEmbedding(dim=128, max_position_embeddings=4096, base=1e6)
    encoder.image_token_id = IMAGE_TOKEN
    module.encoder = encoder
    return module


def vision_transformer() -> VisionTransformer:
    return VisionTransformer(
        embed_dim=32,
        depth=2,
        num_heads=2,
        mlp_ratio=2,
        hidden_size=_QWEN_TEXT,
        fullatt_block_indexes=[1],
    )


def qwen_vae() -> QwenVAE:
    module = QwenVAE()
    sizes = {96 * k: 8 * k for k in (1, 2, 4, 6, 12)} | {384 * 3: 96, 192 * 2: 32}
    _resize(module, lambda _, n: sizes.get(n, n))
    for part in module.modules():
        if isinstance(part, QwenImageRMSNorm):
            part.scale = float(part.weight.shape[0]) ** 0.5
    return module


z_image_transformer = partial(
    ZImageTransformer,
    dim=_WIDTH,
    n_layers=2,
    n_refiner_layers=2,
    n_heads=_HEADS,
    cap_feat_dim=64,
    axes_dims=[4, 6, 6],
)
z_image_text_encoder = partial(
    TextEncoder,
    vocab_size=QWEN_SIZE,
    hidden_size=64,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    intermediate_size=64,
    head_dim=16,
)

FLUX2 = {
    "transformer_overrides": {
        "num_layers": 1,
        "num_single_layers": 2,
        "num_attention_heads": 4,
        "attention_head_dim": 16,
        "joint_attention_dim": 192,
        "axes_dims_rope": [4, 4, 4, 4],
    },
    "text_encoder_overrides": {
        "vocab_size": QWEN_SIZE,
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 27,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
    },
    "vae_norm_groups": VAE_GROUPS,
    "max_sequence_length": 64,
}


def small_mflux() -> ExitStack:
    """While it is open, mflux makes its models small."""
    stack = ExitStack()
    for module, name, small in (
        (flux_initializer, "Transformer", flux_transformer),
        (flux_initializer, "T5Encoder", t5_encoder),
        (flux_initializer, "CLIPEncoder", clip_encoder),
        (flux_initializer, "VAE", partial(vae, flux_vae.VAE)),
        (AdaLayerNormZero, "__call__", _normalise),
        (qwen_initializer, "QwenTransformer", qwen_transformer),
        (qwen_initializer, "QwenTextEncoder", qwen_text_encoder),
        (qwen_initializer, "VisionTransformer", vision_transformer),
        (qwen_initializer, "QwenVAE", qwen_vae),
        (QwenVisionLanguageProcessor, "__call__", _process),
        (z_image_initializer, "ZImageTransformer", z_image_transformer),
        (z_image_initializer, "TextEncoder", z_image_text_encoder),
        (z_image_initializer, "VAE", partial(vae, z_image_vae.VAE)),
    ):
        stack.enter_context(patch.object(module, name, small))
    return stack


flux2_vae = partial(vae, Flux2VAE)


_whole_process = QwenVisionLanguageProcessor.__call__


def _process(self: QwenVisionLanguageProcessor, *, images: list[Any], **given: Any) -> Any:
    """As mflux's, with smaller pictures: it always looks at 384x384, which are 784 patches."""
    images = [image.resize((56, 56)) for image in images]
    return _whole_process(self, images=images, **given)


def _normalise(self: AdaLayerNormZero, hidden_states: mx.array, text_embeddings: mx.array) -> Any:
    """As mflux's, which has the size of its parts in its code."""
    parts = mx.split(self.linear(nn.silu(text_embeddings)), 6, axis=-1)
    shift, scale, gate, *others = parts
    hidden_states = self.norm(hidden_states) * (1 + scale[:, None]) + shift[:, None]
    return hidden_states, gate, *others


def _resize(module: nn.Module, size: Rename) -> None:
    """Give every array another size, by its name and the size that it has."""
    flat = [
        (name, mx.zeros([size(name, n) for n in array.shape]))
        for name, array in tree_flatten(module.parameters())
    ]
    module.update(tree_unflatten(flat))
