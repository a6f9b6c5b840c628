"""Z-Image and Z-Image-Turbo, from words."""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mflux.models.common.config.model_config import ModelConfig
from mflux.models.common.latent_creator.latent_creator import LatentCreator
from mflux.models.common.vae.vae_util import VAEUtil
from mflux.models.z_image.latent_creator.z_image_latent_creator import ZImageLatentCreator
from mflux.models.z_image.model.z_image_text_encoder.prompt_encoder import PromptEncoder
from mflux.models.z_image.model.z_image_transformer import attention
from mflux.models.z_image.variants.z_image import ZImage as Model
from mlx import nn
from PIL import Image

from exo.inference.image.mflux.asked import Asked
from exo.inference.image.mflux.family import Encoded
from exo.inference.image.mflux.patches import Cut, Layout, take
from exo.inference.image.mflux.schedule import EULER, LINEAR, Schedule
from exo.inference.image.mflux.words import check_length

# mflux pads the tokens of words and picture to multiples of it.
_MULTIPLE = 32


class ZImage:
    """With guidance above 1 a step is two passes, the second of the negative prompt."""

    channels = 16
    references = False
    row_axis = 2
    attention = attention

    def __init__(self, path: str, config: ModelConfig) -> None:
        self._model = Model(model_path=path, model_config=config)
        self._config = config

    def modules(self) -> list[tuple[str, nn.Module]]:
        model = self._model
        return [
            ("text_encoder", model.text_encoder),
            ("transformer", model.transformer),
            ("vae", model.vae),
        ]

    def blocks(self) -> list[list[nn.Module]]:
        return [self._model.transformer.layers]

    def refiners(self) -> list[nn.Module]:
        return self._model.transformer.noise_refiner

    def layout(self, which: int, encoded: Encoded, asked: Asked) -> Layout:
        words = encoded["words"][which].shape[0]
        rows, width = asked.height // 16, asked.width // 16
        padding = -rows * width % _MULTIPLE
        return Layout(words + -words % _MULTIPLE, rows, width, padding, words_last=True)

    def cut_inputs(self, inputs: dict[str, Any], cut: Cut, *, refining: bool) -> dict[str, Any]:
        ranges = cut.shown if refining else cut.together
        return {**inputs, "freqs_cis": take(inputs["freqs_cis"], ranges, 0)}

    def schedule(self, asked: Asked, steps: int) -> Schedule:
        scheduler = EULER if self._config.supports_guidance else LINEAR
        return Schedule(self._config, scheduler, asked, steps)

    def encode(self, asked: Asked) -> Encoded:
        encoded: Encoded = {"words": [self._words(asked.prompt)]}
        if asked.guidance > 1:
            words = self._words(asked.negative_prompt or " ", "negative_prompt")
            encoded["words"].append(words)
        return encoded

    def noise(self, seed: int, asked: Asked) -> mx.array:
        return ZImageLatentCreator.create_noise(seed, asked.height, asked.width)

    def latents(self, image: Image.Image, asked: Asked) -> mx.array:
        plain = LatentCreator.encode_image(self._model.vae, image, asked.height, asked.width)
        return self.pack(plain, asked)

    def pack(self, plain: mx.array, asked: Asked) -> mx.array:
        return ZImageLatentCreator.pack_latents(plain, asked.height, asked.width)

    def looks(self, encoded: Encoded, schedule: Schedule) -> int:
        del schedule
        return len(encoded["words"])

    def look(
        self, which: int, step: int, latents: mx.array, encoded: Encoded, schedule: Schedule
    ) -> mx.array:
        sigma = schedule.sigma(step).reshape((1,))
        return self._model.transformer(
            timestep=mx.ones_like(sigma) - sigma,
            x=latents,
            cap_feats=encoded["words"][which],
            sigmas=schedule.config.scheduler.sigmas,
        )

    def guide(self, seen: Sequence[mx.array], schedule: Schedule) -> mx.array:
        if len(seen) == 1:
            return seen[0]
        wanted, unwanted = seen
        return wanted + schedule.config.guidance * (wanted - unwanted)

    def pixels(self, latents: mx.array, asked: Asked) -> mx.array:
        plain = ZImageLatentCreator.unpack_latents(latents, asked.height, asked.width)
        return VAEUtil.decode(self._model.vae, plain)

    def _words(self, text: str, param: str = "prompt") -> mx.array:
        check_length(self._model.tokenizers["z_image"], text, param=param)
        return PromptEncoder.encode_prompt(
            prompt=text,
            tokenizer=self._model.tokenizers["z_image"],
            text_encoder=self._model.text_encoder,
        )
