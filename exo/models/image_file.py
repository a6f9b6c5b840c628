"""`exo.json`, what the folder of an image model may say of itself: see docs/image-models.md."""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from exo.models.image_traits import ImageTraits
from exo.models.image_variants import VARIANTS
from exo.models.safetensors import invalid

NAME = "exo.json"


class TransformerOverrides(BaseModel):
    """Arguments of mflux's FLUX.2 transformer; None is the variant's own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_layers: int | None = Field(default=None, ge=1)
    num_single_layers: int | None = Field(default=None, ge=1)
    num_attention_heads: int | None = Field(default=None, ge=1)
    attention_head_dim: int | None = Field(default=None, ge=2)
    joint_attention_dim: int | None = Field(default=None, ge=1)
    timestep_guidance_channels: int | None = Field(default=None, ge=2)
    mlp_ratio: float | None = Field(default=None, gt=0)
    axes_dims_rope: tuple[int, ...] | None = None
    rope_theta: int | None = Field(default=None, ge=1)


class TextEncoderOverrides(BaseModel):
    """Arguments of mflux's Qwen3 text encoder; None is the variant's own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    vocab_size: int | None = Field(default=None, ge=1)
    hidden_size: int | None = Field(default=None, ge=1)
    intermediate_size: int | None = Field(default=None, ge=1)
    num_hidden_layers: int | None = Field(default=None, ge=27)
    num_attention_heads: int | None = Field(default=None, ge=1)
    num_key_value_heads: int | None = Field(default=None, ge=1)
    head_dim: int | None = Field(default=None, ge=2)
    max_position_embeddings: int | None = Field(default=None, ge=1)
    rope_theta: float | None = Field(default=None, gt=0)
    rms_norm_eps: float | None = Field(default=None, gt=0)


class ImageFile(BaseModel):
    """What such a file holds. `traits` are fields of `ImageTraits`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1]
    variant: str
    max_sequence_length: int | None = Field(default=None, ge=1)
    transformer_overrides: TransformerOverrides = TransformerOverrides()
    text_encoder_overrides: TextEncoderOverrides = TextEncoderOverrides()
    vae_norm_groups: int | None = Field(default=None, ge=1)
    traits: dict[str, Any] = {}

    @model_validator(mode="after")
    def _check(self) -> "ImageFile":
        variant = VARIANTS.get(self.variant)
        if variant is None:
            raise ValueError(f"there is no variant {self.variant!r}; known: {', '.join(VARIANTS)}")
        if (self.transformer or self.text_encoder) and variant.family != "flux2":
            raise ValueError(f"{self.variant} takes no overrides")
        if unknown := set(self.traits) - set(ImageTraits.model_fields):
            raise ValueError(f"there are no traits {', '.join(sorted(unknown))}")
        return self

    @property
    def transformer(self) -> dict[str, Any]:
        """The overrides that are given."""
        return self.transformer_overrides.model_dump(exclude_none=True)

    @property
    def text_encoder(self) -> dict[str, Any]:
        """The overrides that are given."""
        return self.text_encoder_overrides.model_dump(exclude_none=True)


def read_image_file(folder: Path) -> ImageFile | None:
    """What `folder` says of itself, None if nothing.

    Raises:
        ModelInvalid: it says something that is not known.
    """
    path = folder / NAME
    try:
        return ImageFile.model_validate(json.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise invalid(path, f"it cannot be read ({error.strerror})") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise invalid(path, f"{where or 'it'}: {first['msg']}") from error
    except ValueError as error:
        raise invalid(path, "it is no valid JSON") from error
