"""Reading the folder of an image model without loading it: see docs/image-models.md.

mflux loads what it finds, also with tensors missing or of another model; so everything that can be
wrong with the files is found here, from their headers alone.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from exo.models.card import ModelCard, Quantization, Task
from exo.models.image_file import NAME, ImageFile, read_image_file
from exo.models.image_shapes import (
    Layout,
    Wanted,
    count,
    image_names,
    packing,
    size_of,
    why_not,
)
from exo.models.image_traits import ImageTraits
from exo.models.image_variants import VARIANTS, Variant
from exo.models.image_which import Clues, which_family, which_variant
from exo.models.json_files import as_dict, read_json
from exo.models.safetensors import Entry, Header, invalid, read_header
from exo.models.shipped import shipped_card
from exo.models.weights import Part, Weights

# The lists of blocks that make up a transformer, in the order in which they are computed.
BLOCKS = {
    "flux": ("transformer_blocks", "single_transformer_blocks"),
    "flux2": ("transformer_blocks", "single_transformer_blocks"),
    "qwen-image": ("transformer_blocks",),
    "z-image": ("layers",),
}
_TOKENIZERS = {
    "flux": ("tokenizer", "tokenizer_2"),
    "flux2": ("tokenizer",),
    "qwen-image": ("tokenizer",),
    "z-image": ("tokenizer",),
}
_TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "spiece.model", "tokenizer.model")
_DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
# How the families name what a picture's tokens are multiplied by first: its rows are the width.
_WIDTHS = {
    "flux": "x_embedder.weight",
    "flux2": "x_embedder.weight",
    "qwen-image": "img_in.weight",
    "z-image": "cap_embedder.1.weight",
}


@dataclass(frozen=True)
class Component:
    """One part of a model: its tensors by the names in its files."""

    layout: Layout
    tensors: Mapping[str, Entry]


@dataclass(frozen=True)
class ImageModel:
    """A folder that was read and found to be whole."""

    variant: Variant
    file: ImageFile | None
    lengths: Mapping[str, int]
    components: Mapping[str, Component]


def is_image_folder(folder: Path) -> bool:
    """Whether a folder looks like an image model's."""
    return (folder / "transformer").is_dir() and not (folder / "config.json").is_file()


def read_image_card(
    folder: Path, model_id: str | None = None, variant: str | None = None
) -> ModelCard:
    """Describe the image model in `folder`, having checked that its files are whole and are of its
    variant: what `exo.json` says, else `variant`, else what the files tell.

    Raises:
        ModelInvalid: a file or tensor is missing, cut short or not what it should be.
    """
    model = read_image_model(folder, variant)
    blocks = _blocks(model)
    everything = sum(_size(part.tensors.values()) for part in model.components.values())
    packed = sum(_packed(part.tensors.values()) for part in model.components.values())
    rest = Part(
        total=everything - sum(part.total for part in blocks),
        packed=packed - sum(part.packed for part in blocks),
    )
    like = shipped_card(model.variant.name)
    transformer = model.components["transformer"]
    width = transformer.tensors[_WIDTHS[model.variant.family]].shape[0]
    head = _head_dim(model, like)
    return ModelCard(
        model_id=model_id or folder.name,
        path=folder,
        family=model.variant.family,
        architecture=model.variant.name,
        tasks=(Task.IMAGE,),
        n_layers=len(blocks),
        hidden_size=width,
        n_heads=max(1, width // head),
        n_kv_heads=max(1, width // head),
        head_dim=head,
        vocab_size=1,
        context_length=(model.file and model.file.max_sequence_length) or like.context_length,
        dtype=_dtype(transformer.tensors.values()),
        quantization=_quantization(model),
        storage_size=everything,
        packed_size=packed,
        weights=Weights(layers=blocks, embedding=rest),
        created=int((folder / "transformer").stat().st_mtime),
        image=_traits(folder, model.file, like),
    )


def read_image_model(folder: Path, variant: str | None = None) -> ImageModel:
    """As `read_image_card`, what an engine must know of it."""
    file = read_image_file(folder)
    transformer = _component(folder, "transformer")
    family = which_family(transformer.tensors)
    if family is None:
        raise invalid(folder, "its transformer is of no image model that exo knows")
    name = file.variant if file else variant
    chosen = VARIANTS[name or which_variant(family, _clues(folder, transformer))]
    if chosen.family != family:
        raise invalid(
            folder, f"its transformer is of {family}, and {chosen.name} of {chosen.family}"
        )
    components = {"transformer": transformer}
    for part in image_names()[family]:
        if part != "transformer":
            components[part] = _component(folder, part)
    lengths = _lengths(chosen, file, transformer)
    for part, component in components.items():
        reason = why_not(_wanted(chosen, file, part, lengths), component.tensors, component.layout)
        if reason:
            raise invalid(folder / part, f"{reason} ({chosen.name})")
    for tokenizer in _TOKENIZERS[family]:
        if not any((folder / tokenizer / name).is_file() for name in _TOKENIZER_FILES):
            raise invalid(folder, f"it has no {tokenizer}/tokenizer.json")
    return ImageModel(chosen, file, lengths, components)


def _traits(folder: Path, file: ImageFile | None, like: ModelCard) -> ImageTraits:
    """What a model can draw: as the shipped card of its variant says, but for what `exo.json`
    does."""
    own = like.image.model_dump() if like.image else {}
    try:
        return ImageTraits.model_validate({**own, **(file.traits if file else {})})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise invalid(folder / NAME, f"traits.{where}: {first['msg']}") from error


def _clues(folder: Path, transformer: Component) -> Clues:
    index = folder / "model_index.json"
    saved = folder / "mflux_model.json"
    config = folder / "transformer" / "config.json"
    said = read_json(saved).get("model_name") if saved.is_file() else None
    return Clues(
        tensors=transformer.tensors,
        pipeline=str(read_json(index).get("_class_name")) if index.is_file() else None,
        config=read_json(config) if config.is_file() else {},
        words=f"{folder.name} {said or ''}".lower(),
    )


def _component(folder: Path, part: str) -> Component:
    headers = _headers(folder / part)
    ours = any({"mflux_version", "quantization_level"} & set(h.metadata) for h in headers)
    tensors = {name: entry for header in headers for name, entry in header.tensors.items()}
    return Component("mflux" if ours else "hub", tensors)


def _headers(folder: Path) -> list[Header]:
    """Of the files that make up a component: those that the index names, or all."""
    if not folder.is_dir():
        raise invalid(folder.parent, f"it has no folder {folder.name}")
    files = [file for file in sorted(folder.glob("*.safetensors")) if not file.name.startswith(".")]
    for index in sorted(folder.glob("*.safetensors.index.json")):
        named = {str(name) for name in as_dict(read_json(index).get("weight_map")).values()}
        for name in sorted(named):
            if not (folder / name).is_file():
                raise invalid(folder, f"{name} is missing, though the index names it")
        files = [file for file in files if not named or file.name in named]
    if not files:
        raise invalid(folder, "it has no *.safetensors")
    return [read_header(file) for file in files]


def _lengths(variant: Variant, file: ImageFile | None, transformer: Component) -> dict[str, int]:
    """How many blocks each list of the transformer has."""
    lengths = dict(variant.lengths.get("transformer", {}))
    if variant.family == "flux":  # Its code takes as many as there are.
        return {head: count(transformer.tensors, head) for head in BLOCKS["flux"]}
    names = {"transformer_blocks": "num_layers", "single_transformer_blocks": "num_single_layers"}
    given = file.transformer if file else {}
    lengths.update({head: given[name] for head, name in names.items() if name in given})
    return lengths


def _wanted(
    variant: Variant, file: ImageFile | None, part: str, lengths: Mapping[str, int]
) -> Wanted:
    wanted = Wanted(
        table=image_names()[variant.family][part],
        sizes=sizes_of(variant, file).get(part, {}),
        lengths=lengths if part == "transformer" else {},
    )
    if part == "text_encoder" and file and "num_hidden_layers" in file.text_encoder:
        wanted = replace(wanted, lengths={"layers": file.text_encoder["num_hidden_layers"]})
    if part == "vae" and file and file.vae_norm_groups:
        wanted = replace(wanted, unsized=True)
    if variant.name == "flux.1-schnell":
        wanted = replace(wanted, without=("time_text_embed.guidance_embedder.",))
    if variant.family == "qwen-image" and not variant.edit:
        wanted = replace(wanted, without=("encoder.visual.",))
    return wanted


def sizes_of(variant: Variant, file: ImageFile | None) -> dict[str, dict[str, int]]:
    """What stands for the letters in the table, by component."""
    sizes = {part: dict(letters) for part, letters in variant.sizes.items()}
    if file is None or variant.family != "flux2":
        return sizes
    given, width = file.transformer, sizes["transformer"]
    width["H"] = given.get("attention_head_dim", width["H"])
    heads = given.get("num_attention_heads", variant.sizes["transformer"]["D"] // 128)
    width["D"] = heads * width["H"]
    width["M"] = int(width["D"] * given.get("mlp_ratio", 3.0))
    width["J"] = given.get("joint_attention_dim", width["J"])
    width["S"] = given.get("timestep_guidance_channels", width["S"])
    given, text = file.text_encoder, sizes["text_encoder"]
    text["V"] = given.get("vocab_size", text["V"])
    text["D"] = given.get("hidden_size", text["D"])
    text["M"] = given.get("intermediate_size", text["M"])
    text["H"] = given.get("head_dim", text["H"])
    text["Q"] = given.get("num_attention_heads", 32) * text["H"]
    text["K"] = given.get("num_key_value_heads", 8) * text["H"]
    return sizes


def _blocks(model: ImageModel) -> tuple[Part, ...]:
    """The bytes of each block, in the order in which they are computed."""
    tensors = model.components["transformer"].tensors
    parts: list[Part] = []
    for head in BLOCKS[model.variant.family]:
        for index in range(count(tensors, head)):
            start = f"{head}.{index}."
            own = [entry for name, entry in tensors.items() if name.startswith(start)]
            parts.append(Part(total=_size(own), packed=_packed(own)))
    return tuple(parts)


def _size(entries: Iterable[Entry]) -> int:
    return sum(entry.size for entry in entries)


def _packed(entries: Iterable[Entry]) -> int:
    return sum(entry.size for entry in entries if entry.dtype == "U32")


def _head_dim(model: ImageModel, like: ModelCard) -> int:
    given = model.file.transformer if model.file else {}
    return given.get("attention_head_dim", like.head_dim)


def _dtype(entries: Iterable[Entry]) -> str:
    found = Counter(_DTYPES[entry.dtype] for entry in entries if entry.dtype in _DTYPES)
    return found.most_common(1)[0][0] if found else "bfloat16"


def _quantization(model: ImageModel) -> Quantization | None:
    """How the first packed weight of a block is packed."""
    tensors: Mapping[str, Entry] = model.components["transformer"].tensors
    family = model.variant.family
    table = image_names()[family]["transformer"]["tensors"]
    sizes = sizes_of(model.variant, model.file).get("transformer", {})
    for name, (shape, _) in table.items():
        found = packing(name.replace("*", "0"), tensors, size_of(shape[-1], sizes))
        if found:
            return Quantization(bits=found.bits, group_size=found.group)
    return None
