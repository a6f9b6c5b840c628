"""Reading a model folder in mlx-lm layout without loading it.

    config.json                     architecture and shape
    model*.safetensors              weights, in one file or several
    model.safetensors.index.json    which tensor is in which file, when there are several
    tokenizer.json, tokenizer_config.json

Everything that can be wrong with the files is found here, from their headers alone.
"""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from exo.models.card import ModelCard, Quantization
from exo.models.cuts import cuts
from exo.models.encoder_folder import read_encoder_card
from exo.models.encoder_shape import is_encoder
from exo.models.json_files import as_dict, read_json
from exo.models.safetensors import invalid, read_header
from exo.models.shares import shares
from exo.models.weights import Tensor, weights_of

_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tiktoken.model")


def read_card(folder: Path, model_id: str | None = None) -> ModelCard:
    """Describe the model in `folder`, having checked that its files are whole.

    Raises:
        ModelInvalid: a file is missing, cut short or not what it should be.
    """
    config = read_json(folder / "config.json", "Is this a model folder in mlx-lm layout?")
    text: dict[str, Any] = {**config, **as_dict(config.get("text_config"))}
    files = weight_files(folder)
    if is_encoder(config):
        return read_encoder_card(folder, config, files, model_id or folder.name)
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise invalid(folder, "it has no tokenizer.json")
    quantization = _quantization(config)
    tensors = [tensor for file in files for tensor in _tensors(file, quantization is not None)]
    heads = text.get("num_attention_heads") or 1
    try:
        return ModelCard(
            model_id=model_id or folder.name,
            path=folder,
            family=text["model_type"],
            architecture=config["model_type"],
            n_layers=text["num_hidden_layers"],
            hidden_size=text["hidden_size"],
            n_heads=heads,
            n_kv_heads=text.get("num_key_value_heads") or heads,
            head_dim=text.get("head_dim") or max(1, text["hidden_size"] // heads),
            vocab_size=text["vocab_size"],
            context_length=text.get("max_position_embeddings") or 4096,
            dtype=str(text.get("torch_dtype") or text.get("dtype") or "bfloat16"),
            quantization=quantization,
            storage_size=sum(tensor.size for tensor in tensors),
            packed_size=sum(tensor.size for tensor in tensors if tensor.packed),
            weights=weights_of(
                tensors, text["num_hidden_layers"], tied=text.get("tie_word_embeddings") is True
            ),
            cuts=cuts(config),
            shares=shares(config),
            sampling=_sampling(folder),
            created=int((folder / "config.json").stat().st_mtime),
        )
    except KeyError as error:
        raise invalid(folder, f"config.json has no {error}") from error
    except (ValidationError, TypeError) as error:
        raise invalid(folder, f"config.json has a wrong value ({error})") from error


def weight_files(folder: Path) -> list[Path]:
    """The files with weights, all that there should be.

    Raises:
        ModelInvalid: one is missing.
    """
    files = sorted(folder.glob("model*.safetensors"))
    index_file = folder / "model.safetensors.index.json"
    if index_file.is_file():
        names = as_dict(read_json(index_file).get("weight_map")).values()
        for name in sorted(set(names)):
            if not (folder / str(name)).is_file():
                raise invalid(folder, f"{name} is missing, though the index names it")
    if not files:
        raise invalid(folder, "it has no model*.safetensors")
    return files


def _tensors(file: Path, quantised: bool) -> list[Tensor]:
    """The tensors of a file, by its header; checks the file's length."""
    return [
        Tensor(name, entry.size, quantised and entry.dtype in {"U32", "U8"})
        for name, entry in read_header(file).tensors.items()
    ]


def _quantization(config: dict[str, Any]) -> Quantization | None:
    raw = as_dict(config.get("quantization"))
    if "bits" not in raw or "group_size" not in raw:
        return None
    return Quantization(
        bits=raw["bits"], group_size=raw["group_size"], mode=raw.get("mode", "affine")
    )


def _sampling(folder: Path) -> dict[str, float]:
    """The defaults that the model's makers recommend, where they give any."""
    path = folder / "generation_config.json"
    given = read_json(path) if path.is_file() else {}
    return {name: given[name] for name in _SAMPLING if isinstance(given.get(name), int | float)}
