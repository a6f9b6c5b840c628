"""The image models that exo can compute, and the families whose code they share.

`docs/image-models.md` has the table for readers; what each can draw is in its card.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Variant:
    """One model as its makers published it.

    `mflux` is its name in mflux's registry, `pipelines` are the hub's classes that compute it.
    `edit` says that it takes images as references that it looks at, `sizes` what stands for the
    letters in `image_names.json`, by component.
    """

    name: str
    family: str
    mflux: str
    pipelines: tuple[str, ...] = ()
    edit: bool = False
    sizes: Mapping[str, Mapping[str, int]] = field(default_factory=dict[str, Mapping[str, int]])
    lengths: Mapping[str, Mapping[str, int]] = field(default_factory=dict[str, Mapping[str, int]])


# FLUX.2's classes take these as arguments; `exo.json` may give others.
_KLEIN_4B = {
    "transformer": {"D": 3072, "M": 9216, "H": 128, "J": 7680, "S": 256},
    "text_encoder": {"V": 151936, "D": 2560, "M": 9728, "Q": 4096, "K": 1024, "H": 128},
}
_KLEIN_9B = {
    "transformer": {"D": 4096, "M": 12288, "H": 128, "J": 12288, "S": 256},
    "text_encoder": {"V": 151936, "D": 4096, "M": 12288, "Q": 4096, "K": 1024, "H": 128},
}
_KLEIN_9B_LENGTHS = {"transformer": {"transformer_blocks": 8, "single_transformer_blocks": 24}}
_FLUX2 = ("Flux2KleinPipeline", "Flux2Pipeline")
_QWEN_EDIT = ("QwenImageEditPlusPipeline", "QwenImageEditPipeline")


def _klein(name: str, *, large: bool) -> Variant:
    return Variant(
        name=f"flux.2-klein-{name}",
        family="flux2",
        mflux=f"flux2-klein-{name}",
        pipelines=_FLUX2,
        edit=True,
        sizes=_KLEIN_9B if large else _KLEIN_4B,
        lengths=_KLEIN_9B_LENGTHS if large else {},
    )


VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for variant in (
        Variant("flux.1-schnell", "flux", "schnell", ("FluxPipeline",)),
        Variant("flux.1-dev", "flux", "dev", ("FluxPipeline", "FluxImg2ImgPipeline")),
        Variant("flux.1-krea-dev", "flux", "krea-dev", ("FluxPipeline",)),
        Variant("flux.1-kontext-dev", "flux", "dev-kontext", ("FluxKontextPipeline",), edit=True),
        _klein("4b", large=False),
        _klein("9b", large=True),
        _klein("base-4b", large=False),
        _klein("base-9b", large=True),
        Variant("qwen-image", "qwen-image", "qwen-image", ("QwenImagePipeline",)),
        Variant("qwen-image-edit", "qwen-image", "qwen-image-edit", _QWEN_EDIT, edit=True),
        Variant(
            "qwen-image-edit-2511", "qwen-image", "qwen-image-edit-2511", _QWEN_EDIT, edit=True
        ),
        Variant("z-image", "z-image", "z-image", ("ZImagePipeline",)),
        Variant("z-image-turbo", "z-image", "z-image-turbo", ("ZImagePipeline",)),
    )
}

FAMILIES = tuple(dict.fromkeys(variant.family for variant in VARIANTS.values()))
