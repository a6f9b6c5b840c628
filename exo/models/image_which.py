"""Which image model a folder holds, by what its files tell: pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from exo.models.image_variants import VARIANTS
from exo.models.safetensors import Entry

# One tensor that no other family's transformer has, in both layouts.
_TELLTALE = {
    "flux2": "double_stream_modulation_img.linear.weight",
    "qwen-image": "txt_norm.weight",
    "z-image": "cap_embedder.1.weight",
    "flux": "single_transformer_blocks.0.proj_mlp.weight",
}
_GUIDANCE = "time_text_embed.guidance_embedder."


@dataclass(frozen=True)
class Clues:
    """What there is to tell a variant by: the transformer's tensors and its configuration, the
    hub's name of the pipeline, and the words of the folder's name."""

    tensors: Mapping[str, Entry]
    pipeline: str | None
    config: Mapping[str, Any]
    words: str


def which_family(transformer: Mapping[str, Entry]) -> str | None:
    """The family whose transformer has these tensors."""
    for family, name in _TELLTALE.items():
        if name in transformer:
            return family
    return None


def which_variant(family: str, clues: Clues) -> str:
    """The likeliest variant of a family."""
    match family:
        case "flux":
            return _flux(clues)
        case "flux2":
            large = clues.tensors["x_embedder.weight"].shape[0] >= 4096
            base = "base-" if "base" in clues.words else ""
            return f"flux.2-klein-{base}{'9b' if large else '4b'}"
        case "qwen-image":
            return _qwen(clues)
        case _:
            return "z-image-turbo" if "turbo" in clues.words else "z-image"


def _flux(clues: Clues) -> str:
    if not any(name.startswith(_GUIDANCE) for name in clues.tensors):
        return "flux.1-schnell"
    if "kontext" in clues.words or clues.pipeline in VARIANTS["flux.1-kontext-dev"].pipelines:
        return "flux.1-kontext-dev"
    return "flux.1-krea-dev" if "krea" in clues.words else "flux.1-dev"


def _qwen(clues: Clues) -> str:
    if clues.config.get("zero_cond_t") or "2511" in clues.words:
        return "qwen-image-edit-2511"
    edit = "edit" in clues.words or clues.pipeline in VARIANTS["qwen-image-edit"].pipelines
    return "qwen-image-edit" if edit else "qwen-image"
