"""Qwen-Image from words, and Qwen-Image-Edit, which looks at images."""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mflux.models.common.config.model_config import ModelConfig
from mflux.models.common.latent_creator.latent_creator import LatentCreator
from mflux.models.common.vae.vae_util import VAEUtil
from mflux.models.qwen.latent_creator.qwen_latent_creator import QwenLatentCreator
from mflux.models.qwen.model.qwen_text_encoder.qwen_prompt_encoder import QwenPromptEncoder
from mflux.models.qwen.model.qwen_transformer import qwen_attention
from mflux.models.qwen.tokenizer.qwen_vision_language_tokenizer import QwenVisionLanguageTokenizer
from mflux.models.qwen.variants.edit.qwen_edit_util import QwenEditUtil
from mflux.models.qwen.variants.edit.qwen_image_edit import QwenImageEdit
from mflux.models.qwen.variants.txt2img.qwen_image import QwenImage
from mlx import nn
from PIL import Image

from exo.inference.image.mflux.asked import Asked
from exo.inference.image.mflux.family import Encoded
from exo.inference.image.mflux.patches import Cut, Layout, take
from exo.inference.image.mflux.schedule import LINEAR, Schedule
from exo.inference.image.mflux.words import check_length


class Qwen:
    """A step is two passes, the second of the negative prompt, unless guidance is 1."""

    channels = 16
    row_axis = 1
    attention = qwen_attention

    def __init__(self, path: str, config: ModelConfig, *, references: bool) -> None:
        kind = QwenImageEdit if references else QwenImage
        self._model: Any = kind(model_path=path, model_config=config)
        self._config = config
        self.references = references

    def modules(self) -> list[tuple[str, nn.Module]]:
        model = self._model
        return [
            ("text_encoder", model.text_encoder),
            ("transformer", model.transformer),
            ("vae", model.vae),
        ]

    def blocks(self) -> list[list[nn.Module]]:
        return [self._model.transformer.transformer_blocks]

    def refiners(self) -> list[nn.Module]:
        return []

    def layout(self, which: int, encoded: Encoded, asked: Asked) -> Layout:
        reference = encoded["inputs"].get("reference")
        words = encoded["words"][which][0].shape[1]
        others = 0 if reference is None else reference.shape[1]
        return Layout(words, asked.height // 16, asked.width // 16, others)

    def cut_inputs(self, inputs: dict[str, Any], cut: Cut, *, refining: bool) -> dict[str, Any]:
        del refining
        shown, words = inputs["image_rotary_emb"]
        is_reference = inputs["is_cond_token"]
        return {
            **inputs,
            "image_rotary_emb": (
                tuple(take(each, cut.shown, 0) for each in shown),
                tuple(take(each, cut.words, 0) for each in words),
            ),
            "encoder_hidden_states_mask": take(inputs["encoder_hidden_states_mask"], cut.words, 1),
            "is_cond_token": None if is_reference is None else take(is_reference, cut.shown, 1),
        }

    def schedule(self, asked: Asked, steps: int) -> Schedule:
        return Schedule(self._config, LINEAR, asked, steps)

    def encode(self, asked: Asked) -> Encoded:
        inputs: Encoded = {}
        if self.references:
            words = self._look(asked)
            reference, ids, high, wide, number = QwenEditUtil.create_image_conditioning_latents(
                vae=self._model.vae,
                height=asked.height,
                width=asked.width,
                image_paths=list(asked.images),
            )
            grid: Any = [(1, high, wide)] * number
            inputs = {"qwen_image_ids": ids, "cond_image_grid": grid if number > 1 else grid[0]}
            inputs["reference"] = reference
        else:
            tokenizer = self._model.tokenizers["qwen"]
            check_length(tokenizer, asked.prompt)
            check_length(tokenizer, asked.negative_prompt or " ", param="negative_prompt")
            words = QwenPromptEncoder.encode_prompt(
                prompt=asked.prompt,
                negative_prompt=asked.negative_prompt or " ",
                prompt_cache={},
                qwen_tokenizer=tokenizer,
                qwen_text_encoder=self._model.text_encoder,
            )
        return {"inputs": inputs, "words": [words[:2], words[2:]]}

    def _look(self, asked: Asked) -> tuple[mx.array, mx.array, mx.array, mx.array]:
        """The words together with the images. Several images have a number in the prompt each, as
        the model has learned them; mflux's prompt has a place for one."""
        tokenizers = self._model.tokenizers
        tokenizers["qwen_vl"] = QwenVisionLanguageTokenizer(
            processor=tokenizers["qwen_vl"].processor,
            max_length=tokenizers["qwen_vl"].max_length,
            use_picture_prefix=len(asked.images) > 1,
        )
        return self._model._encode_prompts_with_images(  # noqa: SLF001  as above
            prompt=asked.prompt,
            negative_prompt=asked.negative_prompt or "",
            image_paths=list(asked.images),
            config=None,
        )

    def noise(self, seed: int, asked: Asked) -> mx.array:
        return QwenLatentCreator.create_noise(seed, asked.height, asked.width)

    def latents(self, image: Image.Image, asked: Asked) -> mx.array:
        plain = LatentCreator.encode_image(self._model.vae, image, asked.height, asked.width)
        return self.pack(plain, asked)

    def pack(self, plain: mx.array, asked: Asked) -> mx.array:
        return QwenLatentCreator.pack_latents(plain, asked.height, asked.width)

    def looks(self, encoded: Encoded, schedule: Schedule) -> int:
        del encoded
        return 1 if schedule.config.guidance == 1 else 2

    def look(
        self, which: int, step: int, latents: mx.array, encoded: Encoded, schedule: Schedule
    ) -> mx.array:
        inputs = dict(encoded["inputs"])
        reference = inputs.pop("reference", None)
        seen = latents if reference is None else mx.concatenate([latents, reference], axis=1)
        words, mask = encoded["words"][which]
        velocity = self._model.transformer(
            t=step,
            config=schedule.config,
            hidden_states=seen,
            encoder_hidden_states=words,
            encoder_hidden_states_mask=mask,
            **inputs,
        )
        return velocity[:, : latents.shape[1]]

    def guide(self, seen: Sequence[mx.array], schedule: Schedule) -> mx.array:
        if len(seen) == 1:
            return seen[0]
        return QwenImage.compute_guided_noise(seen[0], seen[1], schedule.config.guidance)

    def pixels(self, latents: mx.array, asked: Asked) -> mx.array:
        plain = QwenLatentCreator.unpack_latents(latents, asked.height, asked.width)
        return VAEUtil.decode(self._model.vae, plain)
