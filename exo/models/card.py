"""What exo knows of a model before it loads it."""

from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Task(StrEnum):
    TEXT = "text"
    IMAGE = "image"


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
    quantised (and stays as it is when the rest is cast). `sampling` are the model's own defaults
    for temperature, top_p and the like.
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
    created: int = 0
    sampling: dict[str, float] = {}

    def kv_bytes_per_token(self, element_size: int) -> int:
        """Bytes of keys and values of one token over all layers."""
        return 2 * self.n_layers * self.n_kv_heads * self.head_dim * element_size

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
            "supports_tensor": False,
            "tasks": [task.value for task in self.tasks],
        }
