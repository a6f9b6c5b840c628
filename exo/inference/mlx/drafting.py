"""What makes the drafts of a model, as rank 0 is told to."""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

from dataclasses import dataclass

import mlx.core as mx

from exo.errors import ModelInvalid
from exo.inference.drafts import Drafter, NgramDrafter
from exo.inference.kernels.library import Library
from exo.inference.messages import Load
from exo.inference.mlx import loading
from exo.inference.mlx.adapter import TokenizerWrapper, open_tokenizer
from exo.inference.mlx.draft_model import ModelDrafter
from exo.inference.mlx.loading import Shard


@dataclass(frozen=True)
class Drafting:
    """A drafter and the bytes that it takes, or why there is none though one was asked for."""

    drafter: Drafter | None = None
    memory: int = 0
    off: str | None = None


def open_drafting(
    load: Load, shard: Shard, tokenizer: TokenizerWrapper, kernels: Library | None
) -> Drafting:
    """The drafter that `load` asks for, with its weights read.

    Raises:
        ModelInvalid: the draft model cannot be loaded, or has other tokens than the model.
    """
    if load.draft is None:
        return Drafting()
    if shard.obstacle is not None:
        return Drafting(off=f"This model cannot take back a wrong draft: {shard.obstacle}.")
    if load.draft_path is None:
        return Drafting(NgramDrafter())
    draft = loading.open_whole(load.draft_path, cast_float32=load.cast_float32, kernels=kernels)
    if open_tokenizer(load.draft_path, draft.config).get_vocab() != tokenizer.get_vocab():
        raise ModelInvalid(
            f"{load.draft} cannot draft for this model: their tokens differ.",
            hint="A draft model is a smaller one of the same family; `--draft ngram` needs none.",
            param="draft",
        )
    if draft.obstacle is not None:
        return Drafting(off=f"{load.draft} cannot take back a wrong draft: {draft.obstacle}.")
    mx.eval(draft.stage.model.parameters())
    drafter = ModelDrafter(draft.stage, len(tokenizer.get_vocab()))
    return Drafting(drafter, loading.size_of(draft.stage.model))
