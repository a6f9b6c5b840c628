"""Reading the folder of an encoder without loading it, in the hub's layout.

config.json                     its family and shape
model*.safetensors              weights, with the names that transformers gives them
tokenizer.json
sentence_bert_config.json       `max_seq_length`: the longest text it was made for
modules.json, 1_Pooling         see `exo.models.pooling`
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from exo.errors import ModelInvalid
from exo.models.card import ModelCard, Task
from exo.models.encoder_names import Sources, sources
from exo.models.encoder_shape import EncoderShape, encoder_shape
from exo.models.json_files import read_json
from exo.models.safetensors import Entry, invalid, read_header
from exo.models.weights import Part, Weights

_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
# What tensors of norms were called by TensorFlow, and are in old files.
_OLD = {".gamma": ".weight", ".beta": ".bias"}
_TOKENIZER = "tokenizer.json"


class EncoderFiles(NamedTuple):
    """An encoder whose files are whole: where each tensor is, by the names of `sources`."""

    shape: EncoderShape
    sources: Sources
    entries: Mapping[str, Entry]
    prefix: str
    renamed: Mapping[str, str]

    def name(self, piece: str) -> str:
        """What a piece is called in the files."""
        full = self.prefix + piece
        return self.renamed.get(full, full)


def read_encoder_card(
    folder: Path, config: dict[str, Any], files: Sequence[Path], model_id: str
) -> ModelCard:
    """Describe the encoder in `folder`, having checked that its files are whole.

    Raises:
        ModelInvalid: a file is missing, cut short or not what it should be.
    """
    if not (folder / _TOKENIZER).is_file():
        raise invalid(folder, f"it has no {_TOKENIZER}")
    found = read_encoder(folder, config, files)
    shape, family = found.shape, str(config["model_type"])
    weights, total = _parts(found), 0
    dtypes: Counter[str] = Counter()
    for entry in (
        found.entries[found.name(p.name)] for each in found.sources.values() for p in each
    ):
        total += entry.size
        dtypes[_DTYPES[entry.dtype]] += entry.size
    return ModelCard(
        model_id=model_id,
        path=folder,
        family=family,
        architecture=family,
        tasks=(Task.EMBEDDING,),
        n_layers=shape.layers,
        hidden_size=shape.hidden,
        n_heads=shape.heads,
        n_kv_heads=shape.heads,
        head_dim=shape.head_dim,
        vocab_size=shape.vocab_size,
        context_length=_longest(folder, shape),
        dtype=dtypes.most_common(1)[0][0],
        storage_size=total,
        weights=weights,
        # The state of every token is needed at once: they are not computed by several nodes.
        cuts=(),
        created=int((folder / "config.json").stat().st_mtime),
    )


def read_encoder(folder: Path, config: dict[str, Any], files: Iterable[Path]) -> EncoderFiles:
    """The tensors of an encoder, by the headers of its files.

    Raises:
        ModelInvalid: one is missing, or not as its configuration says.
    """
    kind = config["model_type"]
    if "quantization" in config:
        raise invalid(folder, "it is quantised, and encoders are not read so; take the original")
    try:
        shape = encoder_shape(config)
    except ModelInvalid as error:
        raise invalid(folder, error.message.rstrip(".")) from error
    entries: dict[str, Entry] = {}
    for file in files:
        entries |= read_header(file).tensors
    renamed = {_modern(name): name for name in entries}
    wanted = sources(str(kind), shape)
    words = wanted["words.weight"][0].name
    prefix = next((n.removesuffix(words) for n in renamed if n.endswith(words)), None)
    if prefix is None:
        raise invalid(folder, f"it has no tensor {words}, which a model of type {kind} has")
    found = EncoderFiles(shape, wanted, entries, prefix, renamed)
    _check(folder, found)
    return found


def _modern(name: str) -> str:
    for old, new in _OLD.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def _check(folder: Path, found: EncoderFiles) -> None:
    """See that every tensor is there, with its shape and in a type that can be computed."""
    missing: list[str] = []
    for piece in (piece for each in found.sources.values() for piece in each):
        name = found.name(piece.name)
        entry = found.entries.get(name)
        if entry is None:
            missing.append(name)
            continue
        if entry.shape != piece.shape:
            raise invalid(
                folder,
                f"{name} is {_times(entry.shape)} where config.json says {_times(piece.shape)}",
            )
        if entry.dtype not in _DTYPES:
            raise invalid(folder, f"{name} is stored as {entry.dtype}, which is not supported")
    if missing:
        more = f" and {len(missing) - 1} more tensors are" if len(missing) > 1 else " is"
        raise invalid(folder, f"{missing[0]}{more} missing")


def _times(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "a number"


def _parts(found: EncoderFiles) -> Weights:
    layers = [0] * found.shape.layers
    rest = 0
    for name, pieces in found.sources.items():
        size = sum(found.entries[found.name(piece.name)].size for piece in pieces)
        words = name.split(".")
        if words[0] == "layers":
            layers[int(words[1])] += size
        else:
            rest += size
    alike = len(set(layers)) == 1
    parts = tuple(Part(total=size) for size in (layers[:1] if alike else layers))
    return Weights(layers=parts, embedding=Part(total=rest))


def _longest(folder: Path, shape: EncoderShape) -> int:
    """Tokens of the longest text: as many as it was made for, where that is said."""
    file = folder / "sentence_bert_config.json"
    given = read_json(file).get("max_seq_length") if file.is_file() else None
    return min(shape.context, given) if isinstance(given, int) and given > 0 else shape.context
