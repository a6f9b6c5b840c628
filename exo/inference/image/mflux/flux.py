"""FLUX.1: schnell, dev, Krea, and Kontext, which looks at an image."""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mflux.models.common.config.model_config import ModelConfig
from mflux.models.common.latent_creator.latent_creator import LatentCreator
from mflux.models.common.vae.vae_util import VAEUtil
from mflux.models.flux.latent_creator.flux_latent_creator import FluxLatentCreator
from mflux.models.flux.model.flux_text_encoder.prompt_encoder import PromptEncoder
from mflux.models.flux.model.flux_transformer.common import attention_utils
from mflux.models.flux.variants.kontext.kontext_util import KontextUtil
from mflux.models.flux.variants.txt2img.flux import Flux1
from mlx import nn
from PIL import Image

from exo.inference.image.mflux.asked import Asked
from exo.inference.image.mflux.family import Encoded
from exo.inference.image.mflux.patches import Cut, Layout, take
from exo.inference.image.mflux.schedule import LINEAR, Schedule
from exo.inference.image.mflux.words import check_length


class Flux:
    """Guidance is an input of the transformer, so that a step is one pass."""

    channels = 16
    row_axis = 1
    attention = attention_utils

    def __init__(self, path: str, config: ModelConfig, *, references: bool) -> None:
        self._model = Flux1(model_path=path, model_config=config)
        self._config = config
        self.references = references

    def modules(self) -> list[tuple[str, nn.Module]]:
        model = self._model
        return [
            ("text_encoder", model.clip_text_encoder),
            ("text_encoder_2", model.t5_text_encoder),
            ("transformer", model.transformer),
            ("vae", model.vae),
        ]

    def blocks(self) -> list[list[nn.Module]]:
        transformer = self._model.transformer
        return [transformer.transformer_blocks, transformer.single_transformer_blocks]

    def refiners(self) -> list[nn.Module]:
        return []

    def layout(self, which: int, encoded: Encoded, asked: Asked) -> Layout:
        del which
        reference = encoded["reference"].shape[1] if "reference" in encoded else 0
        words = encoded["prompt_embeds"].shape[1]
        return Layout(words, asked.height // 16, asked.width // 16, reference)

    def cut_inputs(self, inputs: dict[str, Any], cut: Cut, *, refining: bool) -> dict[str, Any]:
        del refining
        positions = take(inputs["rotary_embeddings"], cut.together, 2)
        return {**inputs, "rotary_embeddings": positions}

    def schedule(self, asked: Asked, steps: int) -> Schedule:
        return Schedule(self._config, LINEAR, asked, steps)

    def encode(self, asked: Asked) -> Encoded:
        # CLIP reads the beginning alone, and by design.
        check_length(self._model.tokenizers["t5"], asked.prompt)
        words, pooled = PromptEncoder.encode_prompt(
            prompt=asked.prompt,
            prompt_cache={},
            t5_tokenizer=self._model.tokenizers["t5"],
            clip_tokenizer=self._model.tokenizers["clip"],
            t5_text_encoder=self._model.t5_text_encoder,
            clip_text_encoder=self._model.clip_text_encoder,
        )
        encoded: Encoded = {"prompt_embeds": words, "pooled_prompt_embeds": pooled}
        if self.references:
            reference, ids = KontextUtil.create_image_conditioning_latents(
                vae=self._model.vae,
                width=asked.width,
                height=asked.height,
                image_path=asked.images[0],
            )
            encoded |= {"reference": reference, "kontext_image_ids": ids}
        return encoded

    def noise(self, seed: int, asked: Asked) -> mx.array:
        return FluxLatentCreator.create_noise(seed, asked.height, asked.width)

    def latents(self, image: Image.Image, asked: Asked) -> mx.array:
        plain = LatentCreator.encode_image(self._model.vae, image, asked.height, asked.width)
        return self.pack(plain, asked)

    def pack(self, plain: mx.array, asked: Asked) -> mx.array:
        return FluxLatentCreator.pack_latents(plain, asked.height, asked.width)

    def looks(self, encoded: Encoded, schedule: Schedule) -> int:
        del encoded, schedule
        return 1

    def look(
        self, which: int, step: int, latents: mx.array, encoded: Encoded, schedule: Schedule
    ) -> mx.array:
        del which
        inputs = dict(encoded)
        reference = inputs.pop("reference", None)
        seen = latents if reference is None else mx.concatenate([latents, reference], axis=1)
        velocity = self._model.transformer(
            t=step, config=schedule.config, hidden_states=seen, **inputs
        )
        return velocity[:, : latents.shape[1]]

    def guide(self, seen: Sequence[mx.array], schedule: Schedule) -> mx.array:
        del schedule
        return seen[0]

    def pixels(self, latents: mx.array, asked: Asked) -> mx.array:
        plain = FluxLatentCreator.unpack_latents(latents, asked.height, asked.width)
        return VAEUtil.decode(self._model.vae, plain)
