"""FLUX.2 klein: from words, and from words and images that it looks at."""

# pyright: reportUnknownMemberType=false, reportPrivateUsage=false
# mlx's own stubs leave some parameters untyped; mflux's helpers for edits are named as private.

import math
from collections.abc import Sequence
from typing import Any, cast

import mlx.core as mx
from mflux.models.common.config.model_config import ModelConfig
from mflux.models.common.latent_creator.latent_creator import LatentCreator
from mflux.models.flux.model.flux_transformer.common import attention_utils
from mflux.models.flux2.latent_creator.flux2_latent_creator import Flux2LatentCreator
from mflux.models.flux2.model.flux2_text_encoder.prompt_encoder import Flux2PromptEncoder
from mflux.models.flux2.variants.edit.flux2_klein_edit_helpers import (
    MAX_REFERENCE_AREA,
    REFERENCE_DIM_MULTIPLE,
    _Flux2KleinEditHelpers,
)
from mflux.models.flux2.variants.txt2img.flux2_klein import Flux2Klein
from mlx import nn
from PIL import Image

from exo.inference.image.mflux.asked import Asked
from exo.inference.image.mflux.family import Encoded
from exo.inference.image.mflux.patches import Cut, Layout, take
from exo.inference.image.mflux.schedule import EULER, Schedule
from exo.inference.image.mflux.words import check_length

# Of which layers of the text encoder the transformer reads the outputs.
_LAYERS = (9, 18, 27)


class Flux2:
    """With guidance above 1 a step is two passes, the second of the negative prompt."""

    channels = 32
    row_axis = 1
    attention = attention_utils
    references = True

    def __init__(
        self,
        path: str,
        config: ModelConfig,
        *,
        max_sequence_length: int,
        max_pixels: int | None = None,
        vae_norm_groups: int | None = None,
    ) -> None:
        self._model = Flux2Klein(model_path=path, model_config=config)
        self._config = config
        self._length = max_sequence_length
        self._max_pixels = max_pixels
        if vae_norm_groups is not None:
            for module in cast("list[nn.Module]", self._model.vae.modules()):
                if isinstance(module, nn.GroupNorm):
                    module.num_groups = vae_norm_groups

    def modules(self) -> list[tuple[str, nn.Module]]:
        model = self._model
        assert model.text_encoder is not None  # noqa: S101  only without the small text encoder
        return [
            ("text_encoder", model.text_encoder),
            ("transformer", model.transformer),
            ("vae", model.vae),
        ]

    def blocks(self) -> list[list[nn.Module]]:
        transformer = self._model.transformer
        return [transformer.transformer_blocks, transformer.single_transformer_blocks]

    def refiners(self) -> list[nn.Module]:
        return []

    def layout(self, which: int, encoded: Encoded, asked: Asked) -> Layout:
        reference = encoded["reference"].shape[1] if "reference" in encoded else 0
        words = encoded["words"][which][0].shape[1]
        return Layout(words, asked.height // 16, asked.width // 16, reference)

    def cut_inputs(self, inputs: dict[str, Any], cut: Cut, *, refining: bool) -> dict[str, Any]:
        del refining
        positions = tuple(take(each, cut.together, 0) for each in inputs["image_rotary_emb"])
        return {**inputs, "image_rotary_emb": positions}

    def schedule(self, asked: Asked, steps: int) -> Schedule:
        return Schedule(self._config, EULER, asked, steps)

    def encode(self, asked: Asked) -> Encoded:
        encoded: Encoded = {"ids": self._ids(asked), "words": [self._words(asked.prompt)]}
        if asked.guidance > 1:
            words = self._words(asked.negative_prompt or " ", "negative_prompt")
            encoded["words"].append(words)
        if asked.images:
            images = [self._small_enough(image) for image in asked.images]
            encoded["reference"], encoded["reference_ids"] = (
                _Flux2KleinEditHelpers.prepare_reference_image_conditioning(
                    vae=self._model.vae, tiling_config=None, image_paths=images
                )
            )
        return encoded

    def noise(self, seed: int, asked: Asked) -> mx.array:
        latents, *_ = Flux2LatentCreator.prepare_packed_latents(seed, asked.height, asked.width, 1)
        return latents

    def latents(self, image: Image.Image, asked: Asked) -> mx.array:
        helpers = _Flux2KleinEditHelpers
        plain = LatentCreator.encode_image(self._model.vae, image, asked.height, asked.width)
        patches = Flux2LatentCreator.patchify_latents(helpers.ensure_4d_latents(plain))
        normal = helpers.bn_normalize_vae_encoded_latents(patches, vae=self._model.vae)
        return Flux2LatentCreator.pack_latents(normal)

    def pack(self, plain: mx.array, asked: Asked) -> mx.array:
        del asked
        return Flux2LatentCreator.pack_latents(Flux2LatentCreator.patchify_latents(plain))

    def looks(self, encoded: Encoded, schedule: Schedule) -> int:
        del schedule
        return len(encoded["words"])

    def look(
        self, which: int, step: int, latents: mx.array, encoded: Encoded, schedule: Schedule
    ) -> mx.array:
        seen, ids = latents, encoded["ids"]
        if "reference" in encoded:
            seen = mx.concatenate([latents, encoded["reference"]], axis=1)
            ids = mx.concatenate([ids, encoded["reference_ids"]], axis=1)
        words, positions = encoded["words"][which]
        velocity = self._model.transformer(
            hidden_states=seen,
            encoder_hidden_states=words,
            timestep=schedule.timestep(step),
            img_ids=ids,
            txt_ids=positions,
            guidance=None,
        )
        return velocity[:, : latents.shape[1]]

    def guide(self, seen: Sequence[mx.array], schedule: Schedule) -> mx.array:
        if len(seen) == 1:
            return seen[0]
        wanted, unwanted = seen
        return unwanted + schedule.config.guidance * (wanted - unwanted)

    def pixels(self, latents: mx.array, asked: Asked) -> mx.array:
        shape = (1, asked.height // 16, asked.width // 16, latents.shape[-1])
        return self._model.vae.decode_packed_latents(latents.reshape(shape).transpose(0, 3, 1, 2))

    def _small_enough(self, image: Image.Image) -> Image.Image:
        """A model of small pictures is shown none that are larger than what it draws; for others
        mflux has a limit of its own."""
        area, limit = image.width * image.height, self._max_pixels or MAX_REFERENCE_AREA
        if area <= limit or limit >= MAX_REFERENCE_AREA:
            return image
        scale = math.sqrt(limit / area)
        width, height = (max(REFERENCE_DIM_MULTIPLE, round(s * scale)) for s in image.size)
        return image.resize((width, height), Image.Resampling.LANCZOS)

    def _words(self, text: str, param: str = "prompt") -> tuple[mx.array, mx.array]:
        """The embeddings of a prompt, and their positions."""
        check_length(self._model.tokenizers["qwen3"], text, length=self._length, param=param)
        return Flux2PromptEncoder.encode_prompt(
            prompt=text,
            tokenizer=self._model.tokenizers["qwen3"],
            text_encoder=self._model.text_encoder,
            max_sequence_length=self._length,
            text_encoder_out_layers=_LAYERS,
        )

    def _ids(self, asked: Asked) -> mx.array:
        """The positions of the picture's patches."""
        patches = mx.zeros((1, 1, asked.height // 16, asked.width // 16))
        return Flux2LatentCreator.prepare_grid_ids(patches, t_coord=0)
