"""Folders of tiny image models with random weights, of every family, in both layouts."""

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
from mflux.models.common.config.model_config import AVAILABLE_MODELS
from mflux.models.flux.model.flux_text_encoder.t5_encoder.t5_encoder import T5Encoder
from mflux.models.flux.model.flux_vae import vae as flux_vae
from mflux.models.flux.weights.flux_weight_definition import FluxWeightDefinition
from mflux.models.flux2.model.flux2_text_encoder.qwen3_text_encoder import Qwen3TextEncoder
from mflux.models.flux2.model.flux2_transformer.transformer import Flux2Transformer
from mflux.models.flux2.weights.flux2_weight_definition import Flux2KleinWeightDefinition
from mflux.models.qwen.weights.qwen_weight_definition import QwenWeightDefinition
from mflux.models.z_image.model.z_image_vae import vae as z_image_vae
from mflux.models.z_image.weights.z_image_weight_definition import ZImageWeightDefinition
from mlx import nn
from mlx.utils import tree_flatten, tree_map_with_path

from exo.models.image_variants import VARIANTS
from tests.inference.image import small, tokenizers

sys.path.insert(0, str(Path(__file__).parents[3] / "tools"))
import image_names

Parts = dict[str, nn.Module]
_PIPELINES = {"qwen-image-edit": "QwenImageEditPlusPipeline"}
_GROUP = 32


def _flux(variant: str) -> Parts:
    config = AVAILABLE_MODELS[VARIANTS[variant].mflux]
    return {
        "vae": small.vae(flux_vae.VAE),
        "transformer": small.flux_transformer(config, 2, 2),
        "t5_encoder": small.t5_encoder(),
        "clip_encoder": small.clip_encoder(),
    }


def _flux2(variant: str) -> Parts:
    del variant
    return {
        "vae": small.flux2_vae(),
        "transformer": Flux2Transformer(**small.FLUX2["transformer_overrides"]),
        "text_encoder": Qwen3TextEncoder(**small.FLUX2["text_encoder_overrides"]),
    }


def _qwen(variant: str) -> Parts:
    text_encoder = small.qwen_text_encoder()
    if VARIANTS[variant].edit:
        text_encoder.encoder.visual = small.vision_transformer()
    return {
        "vae": small.qwen_vae(),
        "transformer": small.qwen_transformer(),
        "text_encoder": text_encoder,
    }


def _z_image(variant: str) -> Parts:
    del variant
    return {
        "vae": small.vae(z_image_vae.VAE),
        "transformer": small.z_image_transformer(),
        "text_encoder": small.z_image_text_encoder(),
    }


FAMILIES: dict[str, tuple[Callable[[str], Parts], Any]] = {
    "flux": (_flux, FluxWeightDefinition),
    "flux2": (_flux2, Flux2KleinWeightDefinition),
    "qwen-image": (_qwen, QwenWeightDefinition),
    "z-image": (_z_image, ZImageWeightDefinition),
}


def small_names() -> dict[str, Any]:
    """The table of names and shapes, for the small models."""
    largest = {"flux": "flux.1-dev", "qwen-image": "qwen-image-edit", "z-image": "z-image"}
    families = {
        family: (partial(FAMILIES[family][0], variant), FAMILIES[family][1])
        for family, variant in largest.items()
    }
    real = json.loads(image_names.FILE.read_text())
    return {**real, **image_names.table(families)}


def make_image_model(
    folder: Path, variant: str, *, hub: bool = False, bits: int | None = None, seed: int = 0
) -> Path:
    """A folder of a variant in mflux's layout, or in the hub's; in mflux's it may be quantised."""
    family = VARIANTS[variant].family
    make, definition = FAMILIES[family]
    parts = make(variant)
    for index, module in enumerate(parts.values()):
        _fill(module, seed * 100 + index)
    for component in definition.get_components():
        module = parts[component.name]
        if bits and not (component.skip_quantization or component.name == "vae"):
            nn.quantize(module, group_size=_GROUP, bits=bits, class_predicate=_quantisable)
        where = folder / component.hf_subdir
        where.mkdir(parents=True)
        arrays = dict(tree_flatten(module.parameters()))
        if hub:
            _save_hub(where, arrays, component)
        else:
            _save_mflux(where, arrays, bits)
    if family == "flux":
        tokenizers.clip(folder / "tokenizer")
        tokenizers.t5(folder / "tokenizer_2")
    else:
        tokenizers.qwen(folder / "tokenizer")
    _describe(folder, variant, hub=hub)
    return folder


def _describe(folder: Path, variant: str, *, hub: bool) -> None:
    said = {"format": 1, "variant": variant, "traits": {"min_side": 32, "size": 64}}
    if VARIANTS[variant].family == "flux2":
        said |= small.FLUX2
    if VARIANTS[variant].family == "flux":
        said["max_sequence_length"] = 64
    (folder / "exo.json").write_text(json.dumps(said))
    if hub:
        index = {"_class_name": VARIANTS[variant].pipelines[0]}
        (folder / "model_index.json").write_text(json.dumps(index))


def _quantisable(_: str, module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return hasattr(module, "to_quantized") and weight is not None and weight.shape[-1] % _GROUP == 0


def _fill(module: nn.Module, seed: int) -> None:
    """Random weights of a size that keeps what is computed in bounds; norms leave it as it is."""
    keys = iter(mx.random.split(mx.random.key(seed), len(tree_flatten(module.parameters()))))

    def fill(path: str, array: mx.array) -> mx.array:
        key = next(keys)
        if "inv_freq" in path:
            return array
        if path.endswith("running_var"):
            return mx.ones(array.shape, mx.bfloat16)
        if ("norm" in path and array.ndim == 1 and path.endswith("weight")) or array.size == 1:
            return mx.ones(array.shape, mx.bfloat16)
        fan = array.size // array.shape[0] if array.ndim > 1 else 100
        scale = 1.0 / max(fan, 1) ** 0.5
        return (mx.random.normal(array.shape, key=key) * scale).astype(mx.bfloat16)

    module.update(tree_map_with_path(fill, module.parameters()))
    if isinstance(module, T5Encoder):  # The hub has one for all.
        first, *others = [block.attention.SelfAttention for block in module.t5_blocks]
        for other in others:
            other.relative_attention_bias.weight = first.relative_attention_bias.weight
    mx.eval(module.parameters())


def _save_mflux(folder: Path, arrays: dict[str, mx.array], bits: int | None) -> None:
    """In two files, as large models are."""
    names = sorted(arrays)
    half = len(names) // 2
    weight_map: dict[str, str] = {}
    said = {"quantization_level": str(bits), "mflux_version": "0.24.0"}
    for number, some in enumerate((names[:half], names[half:])):
        file = f"{number}.safetensors"
        mx.save_safetensors(str(folder / file), {name: arrays[name] for name in some}, said)
        weight_map |= dict.fromkeys(some, file)
    index = {"metadata": said, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _save_hub(folder: Path, arrays: dict[str, mx.array], component: Any) -> None:
    """Under the hub's names, with convolutions in its order of axes."""
    names = image_names._hub_names(component, arrays)
    renamed = {names[name][0]: _to_hub(array) for name, array in arrays.items() if name in names}
    file = "model.safetensors" if "text" in folder.name else "diffusion_pytorch_model.safetensors"
    mx.save_safetensors(str(folder / file), renamed)
    if component.loading_mode == "multi_json":
        index = {"weight_map": dict.fromkeys(renamed, file)}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text("{}")


def _to_hub(array: mx.array) -> mx.array:
    if array.ndim < 4:
        return array
    last = array.ndim - 1
    order = (0, last, *range(1, last))
    return mx.contiguous(array.transpose(order))
