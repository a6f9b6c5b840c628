"""Reading a model folder in mlx-lm layout without loading it.

    config.json                     architecture and shape
    model*.safetensors              weights, in one file or several
    model.safetensors.index.json    which tensor is in which file, when there are several
    tokenizer.json, tokenizer_config.json

Everything that can be wrong with the files is found here, from their headers alone.
The safetensors format: https://huggingface.co/docs/safetensors (8 bytes of header length, a JSON
header with the offsets of each tensor, then the data).
"""

import json
import struct
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from exo.errors import ModelInvalid
from exo.models.card import ModelCard, Quantization
from exo.models.cuts import cuts
from exo.models.shares import shares
from exo.models.weights import Tensor, weights_of

_MAX_HEADER = 100_000_000
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tiktoken.model")


def read_card(folder: Path, model_id: str | None = None) -> ModelCard:
    """Describe the model in `folder`, having checked that its files are whole.

    Raises:
        ModelInvalid: a file is missing, cut short or not what it should be.
    """
    config = _read_json(folder / "config.json", "Is this a model folder in mlx-lm layout?")
    text: dict[str, Any] = {**config, **_as_dict(config.get("text_config"))}
    files = _weight_files(folder)
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise _invalid(folder, "it has no tokenizer.json")
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
        raise _invalid(folder, f"config.json has no {error}") from error
    except (ValidationError, TypeError) as error:
        raise _invalid(folder, f"config.json has a wrong value ({error})") from error


def _weight_files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("model*.safetensors"))
    index_file = folder / "model.safetensors.index.json"
    if index_file.is_file():
        names = _as_dict(_read_json(index_file).get("weight_map")).values()
        for name in sorted(set(names)):
            if not (folder / str(name)).is_file():
                raise _invalid(folder, f"{name} is missing, though the index names it")
    if not files:
        raise _invalid(folder, "it has no model*.safetensors")
    return files


def _tensors(file: Path, quantised: bool) -> list[Tensor]:
    """The tensors of a file, by its header; checks the file's length."""
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            start = stream.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if not 0 < length <= min(_MAX_HEADER, size - 8):
                raise _invalid(file, "it is cut short or no safetensors file")
            header: dict[str, Any] = json.loads(stream.read(length))
    except OSError as error:
        raise _invalid(file, f"it cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise _invalid(file, "its header is damaged") from error
    tensors: list[Tensor] = []
    end = 0
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            first, last = entry["data_offsets"]
            packed = quantised and entry["dtype"] in {"U32", "U8"}
            tensors.append(Tensor(name, last - first, packed))
        except (KeyError, TypeError, ValueError) as error:
            raise _invalid(file, f"its header is damaged at {name}") from error
        end = max(end, last)
    if size != 8 + length + end:
        raise _invalid(file, f"it has {size} bytes where its header says {8 + length + end}")
    return tensors


def _quantization(config: dict[str, Any]) -> Quantization | None:
    raw = _as_dict(config.get("quantization"))
    if "bits" not in raw or "group_size" not in raw:
        return None
    return Quantization(
        bits=raw["bits"], group_size=raw["group_size"], mode=raw.get("mode", "affine")
    )


def _sampling(folder: Path) -> dict[str, float]:
    """The defaults that the model's makers recommend, where they give any."""
    path = folder / "generation_config.json"
    given = _read_json(path) if path.is_file() else {}
    return {name: given[name] for name in _SAMPLING if isinstance(given.get(name), int | float)}


def _read_json(path: Path, hint: str | None = None) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ModelInvalid(f"{path} is missing.", hint=hint) from error
    except OSError as error:
        raise _invalid(path, f"it cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise _invalid(path, "it is no valid JSON") from error
    if not isinstance(data, dict):
        raise _invalid(path, "it is no JSON object")
    return cast("dict[str, Any]", data)


def _as_dict(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _invalid(path: Path, reason: str) -> ModelInvalid:
    return ModelInvalid(
        f"The model at {path} cannot be used: {reason}.",
        hint="Copy or download it again.",
    )
