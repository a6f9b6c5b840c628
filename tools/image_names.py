"""Write exo/models/image_names.json: which tensors an image model's components have, and how large.

exo checks a folder by this table before a runner loads it, without importing mflux; mflux itself
loads what is there. Made from mflux's own classes, which are not evaluated, and from its mapping of
the hub's names; `--check` writes nothing and fails where mflux says something else.

A name has a `*` where a list's index stands whose members are all alike. A size is a number, or a
sum of products of what `exo.json` may change, as `3*D+2*M`.
"""

import json
import re
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

from mflux.models.common.config.model_config import ModelConfig
from mflux.models.common.weights.loading.weight_definition import ComponentDefinition
from mflux.models.common.weights.mapping.weight_mapper import WeightMapper
from mflux.models.flux.model.flux_text_encoder.clip_encoder.clip_encoder import CLIPEncoder
from mflux.models.flux.model.flux_text_encoder.t5_encoder.t5_encoder import T5Encoder
from mflux.models.flux.model.flux_transformer.transformer import Transformer
from mflux.models.flux.model.flux_vae import vae as flux_vae
from mflux.models.flux.weights.flux_weight_definition import FluxWeightDefinition
from mflux.models.flux2.model.flux2_text_encoder.qwen3_text_encoder import Qwen3TextEncoder
from mflux.models.flux2.model.flux2_transformer.transformer import Flux2Transformer
from mflux.models.flux2.model.flux2_vae.vae import Flux2VAE
from mflux.models.flux2.weights.flux2_weight_definition import Flux2KleinWeightDefinition
from mflux.models.qwen.model.qwen_text_encoder.qwen_text_encoder import QwenTextEncoder
from mflux.models.qwen.model.qwen_text_encoder.qwen_vision_transformer import VisionTransformer
from mflux.models.qwen.model.qwen_transformer.qwen_transformer import QwenTransformer
from mflux.models.qwen.model.qwen_vae.qwen_vae import QwenVAE
from mflux.models.qwen.weights.qwen_weight_definition import QwenWeightDefinition
from mflux.models.z_image.model.z_image_text_encoder.text_encoder import TextEncoder
from mflux.models.z_image.model.z_image_transformer.transformer import ZImageTransformer
from mflux.models.z_image.model.z_image_vae import vae as z_image_vae
from mflux.models.z_image.weights.z_image_weight_definition import ZImageWeightDefinition
from mlx import nn
from mlx.utils import tree_flatten

FILE = Path(__file__).parents[1] / "exo" / "models" / "image_names.json"

# Sizes that no other quantity has, so that they can be told apart in a tensor's shape.
HEADS, HEAD, RATIO = 7, 26, 5.5
SYMBOLS = {
    "transformer": {
        "D": HEADS * HEAD,
        "M": int(HEADS * HEAD * RATIO),
        "H": HEAD,
        "J": 10007,
        "S": 254,
    },
    "text_encoder": {"V": 50021, "D": 2003, "M": 4001, "Q": 13 * 34, "K": 3 * 34, "H": 34},
}


def flux() -> dict[str, nn.Module]:
    return {
        "vae": flux_vae.VAE(),
        "transformer": Transformer(ModelConfig.dev()),
        "t5_encoder": T5Encoder(),
        "clip_encoder": CLIPEncoder(),
    }


def flux2() -> dict[str, nn.Module]:
    sizes, text = SYMBOLS["transformer"], SYMBOLS["text_encoder"]
    return {
        "vae": Flux2VAE(),
        "transformer": Flux2Transformer(
            num_layers=5,
            num_single_layers=20,
            attention_head_dim=HEAD,
            num_attention_heads=HEADS,
            joint_attention_dim=sizes["J"],
            timestep_guidance_channels=sizes["S"],
            mlp_ratio=RATIO,
        ),
        "text_encoder": Qwen3TextEncoder(
            vocab_size=text["V"],
            hidden_size=text["D"],
            num_attention_heads=13,
            num_key_value_heads=3,
            intermediate_size=text["M"],
            head_dim=text["H"],
        ),
    }


def qwen() -> dict[str, nn.Module]:
    text_encoder = QwenTextEncoder()
    text_encoder.encoder.visual = VisionTransformer()
    return {"vae": QwenVAE(), "transformer": QwenTransformer(), "text_encoder": text_encoder}


def z_image() -> dict[str, nn.Module]:
    return {
        "vae": z_image_vae.VAE(),
        "transformer": ZImageTransformer(),
        "text_encoder": TextEncoder(),
    }


Modules = Callable[[], dict[str, nn.Module]]
FAMILIES: dict[str, tuple[Modules, Any]] = {
    "flux": (flux, FluxWeightDefinition),
    "flux2": (flux2, Flux2KleinWeightDefinition),
    "qwen-image": (qwen, QwenWeightDefinition),
    "z-image": (z_image, ZImageWeightDefinition),
}


def table(families: dict[str, tuple[Modules, Any]]) -> dict[str, Any]:
    """By family and folder: the `lists` of parts that are alike with their lengths, and for each of
    the `tensors` by mflux's name its shape, and the hub's names for it, any of which will do."""
    return {
        name: {
            component.hf_subdir: describe(modules[component.name], component, name == "flux2")
            for component in definition.get_components()
        }
        for name, (make, definition) in families.items()
        for modules in [make()]
    }


def describe(module: nn.Module, component: ComponentDefinition, symbolic: bool) -> dict[str, Any]:
    symbols = SYMBOLS.get(component.name, {}) if symbolic else {}
    shapes = {
        name: [_size(n, symbols) for n in array.shape]
        for name, array in tree_flatten(module.parameters())
    }
    hub = _hub_names(component, shapes)
    tensors = {name: [shape, hub.get(name, [])] for name, shape in shapes.items()}
    lists = _alike(tensors)
    starred = {}
    for name, (shape, names) in tensors.items():
        short = next((head for head in lists if name.startswith(f"{head}.")), None)
        if short is None:
            starred[name] = [shape, names]
        elif name.startswith(f"{short}.0."):
            other = tensors[name.replace(f"{short}.0.", f"{short}.1.", 1)][1]
            pairs = zip(names, other, strict=True)
            starred[_star(name, name.replace(f"{short}.0.", f"{short}.1.", 1))] = [
                shape,
                [_star(one, next_one) for one, next_one in pairs],
            ]
    return {"lists": lists, "tensors": starred}


def _hub_names(component: ComponentDefinition, shapes: dict[str, Any]) -> dict[str, list[str]]:
    """The hub's names of each tensor."""
    blocks = component.num_blocks or 60
    layers = component.num_layers or 36
    mapping = component.mapping_getter() if component.mapping_getter else []
    names: dict[str, list[str]] = {}
    flat = WeightMapper._build_flat_mapping(mapping, blocks, layers)  # noqa: SLF001  no public one
    for hub, targets in flat.items():
        for path, _ in targets:
            if path in shapes:
                names.setdefault(path, []).append(hub)
    return names


def _alike(tensors: dict[str, Any]) -> dict[str, int]:
    """The outermost lists of more than one part, all of which have the same tensors."""
    heads: dict[str, dict[int, dict[str, Any]]] = {}
    for name, (shape, _) in tensors.items():
        if match := re.match(r"(.*?)\.(\d+)\.(.*)", name):
            heads.setdefault(match[1], {}).setdefault(int(match[2]), {})[match[3]] = shape
    return {
        head: len(parts)
        for head, parts in heads.items()
        if len(parts) > 1 and all(part == parts[0] for part in parts.values())
    }


def _star(one: str, other: str) -> str:
    """With a star where two names have another index. The hub may have one tensor for all parts of
    a list, whose names are the same."""
    pairs = zip(one.split("."), other.split("."), strict=True)
    return ".".join(a if a == b else "*" for a, b in pairs)


def _size(size: int, symbols: dict[str, int]) -> int | str:
    for one, other in product(symbols, repeat=2):
        for a, b in product(range(1, 7), range(4)):
            if size == a * symbols[one] + b * symbols[other] and (b == 0 or one < other):
                terms = [(a, one), (b, other)]
                return "+".join(f"{k}*{s}" if k > 1 else s for k, s in terms if k)
    return size


def text() -> str:
    """One line for each tensor."""
    compact = json.dumps(table(FAMILIES), indent=1)
    return re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", _one_line, compact) + "\n"


def _one_line(match: re.Match[str]) -> str:
    return "[" + " ".join(match[1].split()) + "]"


def main() -> int:
    made = text()
    if "--check" in sys.argv:
        return int(FILE.read_text("utf-8") != made)
    FILE.write_text(made, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
