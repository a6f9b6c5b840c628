"""What exo knows of a model before it loads it."""

from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from exo.models.image_traits import ImageTraits
from exo.models.shares import Shares
from exo.models.weights import Part, Weights

# Numbers that MLX can quantise together, the fewest bytes first.
KV_GROUPS = (64, 32)
# What a layer of an encoder computes of a token, in sizes of its state: queries, keys and values,
# the feed-forward part before and behind its activation, and the states themselves.
_STATES = 20


class Task(StrEnum):
    TEXT = "text"
    IMAGE = "image"
    EMBEDDING = "embedding"


class Quantization(BaseModel):
    """How the weights are packed."""

    model_config = ConfigDict(frozen=True)

    bits: int
    group_size: int
    mode: str = "affine"

    def __str__(self) -> str:
        return f"{self.bits}bit" if self.mode == "affine" else self.mode


class ModelCard(BaseModel):
    """One model: its shape, its size in bytes, and where its weights are.

    `storage_size` is the bytes of the weights as stored; `packed_size` is the part of them that is
    quantised (and stays as it is when the rest is cast). `weights` says in which part of the model
    they lie, where the files could be read; `cuts` before which layers the list may be cut, None
    if before any. `shares` says what every node must get an equal part of when the layers are split
    by tensors, None if they cannot be. `sampling` are the model's own defaults for temperature,
    top_p and the like. `image` says what an image model can draw; it is None for those of text.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model_id: str
    aliases: tuple[str, ...] = ()
    repo: str | None = None
    path: Path | None = None
    family: str
    architecture: str
    tasks: tuple[Task, ...] = (Task.TEXT,)
    n_layers: int = Field(ge=1)
    hidden_size: int = Field(ge=1)
    n_heads: int = Field(ge=1)
    n_kv_heads: int = Field(ge=1)
    head_dim: int = Field(ge=1)
    vocab_size: int = Field(ge=1)
    context_length: int = Field(ge=1)
    dtype: str = "bfloat16"
    quantization: Quantization | None = None
    storage_size: int = Field(ge=0)
    packed_size: int = Field(default=0, ge=0)
    weights: Weights | None = None
    cuts: tuple[int, ...] | None = None
    shares: Shares | None = None
    created: int = 0
    sampling: dict[str, float] = {}
    image: ImageTraits | None = None

    def kv_bytes_per_token(self, element_size: int, bits: int | None = None) -> int:
        """Bytes of keys and values of one token over all layers; of `bits` each, if they are
        quantised, with a scale and a bias for every group. An encoder keeps none, but computes all
        tokens of a text at once."""
        if self.encodes:
            return _STATES * self.hidden_size * element_size
        numbers = 2 * self.n_layers * self.n_kv_heads * self.head_dim
        if bits is None or self.kv_group is None:
            return numbers * element_size
        return numbers * bits // 8 + numbers // self.kv_group * 2 * element_size

    def is_called(self, name: str) -> bool:
        """Whether `name` means this model: its id, its repository, an alias, or its folder."""
        return name in {self.model_id, self.repo, *self.aliases, str(self.path)}

    @property
    def encodes(self) -> bool:
        """Whether it is an encoder: it makes vectors, and cannot answer."""
        return self.tasks == (Task.EMBEDDING,)

    def does(self, task: Task) -> bool:
        """Whether it is for this task. What answers in words makes vectors as well."""
        return task in self.tasks or (task is Task.EMBEDDING and Task.TEXT in self.tasks)

    @property
    def kv_group(self) -> int | None:
        """How many numbers of a key share a scale when it is quantised; None if it cannot be."""
        return next((size for size in KV_GROUPS if self.head_dim % size == 0), None)

    @property
    def parts(self) -> Weights:
        """The parts of the model, with one for each layer; an estimate where no file was read."""
        parts = self.weights or self._estimate()
        if len(parts.layers) == self.n_layers:
            return parts
        return parts.model_copy(update={"layers": parts.layers[:1] * self.n_layers})

    @property
    def boundaries(self) -> tuple[int, ...]:
        """Where a share of the layers may begin or end: 0, the cuts, and `n_layers`."""
        inner = range(1, self.n_layers) if self.cuts is None else sorted(set(self.cuts))
        return (0, *(cut for cut in inner if 0 < cut < self.n_layers), self.n_layers)

    def _estimate(self) -> Weights:
        """Layers that are alike, and an embedding that is the head as well: whoever computes the
        last layers is then sure to have room for a head."""
        elements = self.vocab_size * self.hidden_size
        if self.quantization is None:
            size, packed = elements * (4 if self.dtype == "float32" else 2), 0
        else:
            packed = elements * self.quantization.bits // 8
            size = packed + elements * 4 // self.quantization.group_size
        size, packed = min(size, self.storage_size // 2), min(packed, self.packed_size // 2)
        n = self.n_layers
        layer = Part(total=(self.storage_size - size) // n, packed=(self.packed_size - packed) // n)
        # What does not divide by the layers is the embedding's, so that the sums are exact.
        rest = Part(
            total=self.storage_size - n * layer.total, packed=self.packed_size - n * layer.packed
        )
        return Weights(layers=(layer,), embedding=rest, tied=True)

    @property
    def shape(self) -> str:
        """What two copies of a model have in common, wherever they lie and whatever they are
        called."""
        parts = (
            self.architecture,
            self.n_layers,
            self.hidden_size,
            self.n_heads,
            self.n_kv_heads,
            self.head_dim,
            self.vocab_size,
            self.dtype,
            self.quantization,
            self.storage_size,
        )
        return "/".join(str(part) for part in parts)

    def to_api(self) -> dict[str, Any]:
        """The model object of `GET /v1/models`, OpenAI's fields first."""
        return {
            "id": self.model_id,
            "object": "model",
            "created": self.created,
            "owned_by": "exo",
            "name": self.model_id.rsplit("/", 1)[-1],
            "aliases": list(self.aliases),
            "hugging_face_id": self.repo,
            "family": self.family,
            "architecture": self.architecture,
            "n_layers": self.n_layers,
            "context_length": self.context_length,
            "quantization": str(self.quantization) if self.quantization else None,
            "storage_size": self.storage_size,
            "available": self.path is not None,
            "path": str(self.path) if self.path else None,
            "supports_tensor": self.shares is not None,
            "tasks": [task.value for task in self.tasks],
        }
