"""How a model's hidden states become one vector, as its folder says (sentence-transformers).

modules.json            the steps: Transformer, Pooling, Normalize
1_Pooling/config.json   which states are taken
config.json             `is_matryoshka` or `matryoshka_dimensions`: vectors may be cut
"""

from pathlib import Path
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict

from exo.errors import RequestError
from exo.models.encoder_shape import encoder_shape, is_encoder
from exo.models.json_files import as_dict, read_json, read_objects

Kind = Literal["mean", "last", "first"]
_KINDS: dict[str, Kind] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "last",
    "pooling_mode_cls_token": "first",
    # As newer versions write it.
    "mean": "mean",
    "lasttoken": "last",
    "cls": "first",
}
# By the last part of their names: what sentence-transformers does that is done here too.
_STEPS = frozenset({"Transformer", "Pooling", "Normalize"})


class Pooling(BaseModel):
    """Which states of the last layer are taken, and whether the vector has length 1. `cut` says
    whether it may be cut to fewer numbers, `cuts` to how many, any number if that is empty."""

    model_config = ConfigDict(frozen=True)

    kind: Kind
    normalize: bool
    size: int
    cut: bool = False
    cuts: tuple[int, ...] = ()

    def check(self, dimensions: int | None) -> None:
        """Raises:
        RequestError: vectors of so many numbers cannot be had.
        """
        if dimensions is None or dimensions == self.size:
            return
        if not self.cut:
            raise RequestError(
                f"This model's vectors have {self.size} numbers; it was not made for fewer.",
                param="dimensions",
            )
        if dimensions > self.size or (self.cuts and dimensions not in self.cuts):
            which = f"{', '.join(map(str, self.cuts))} or " if self.cuts else "up to "
            raise RequestError(
                f"This model's vectors have {which}{self.size} numbers.", param="dimensions"
            )


def read_pooling(folder: Path) -> Pooling:
    """What the folder says. Where it says nothing, the last state (of an encoder the mean, as
    sentence-transformers does), and vectors of length 1.

    Raises:
        ModelInvalid: a file of it is damaged.
        RequestError: it asks for steps, states or an attention that are not known.
    """
    config = read_json(folder / "config.json")
    text = {**config, **as_dict(config.get("text_config"))}
    encoder = encoder_shape(config) if is_encoder(config) else None
    both_ways = text.get("is_causal") is False or text.get("use_bidirectional_attention")
    if both_ways and encoder is None:
        raise RequestError(
            "The tokens of this model see those behind them as well, which is not supported.",
            param="model",
        )
    cuts = config.get("matryoshka_dimensions")
    found: dict[str, Any] = {
        # An encoder's last token says nothing of the others.
        "kind": "mean" if encoder else "last",
        "normalize": True,
        "size": encoder.hidden if encoder else text.get("hidden_size") or 1,
        "cut": bool(config.get("is_matryoshka") or cuts),
        "cuts": cast("list[int]", cuts) if isinstance(cuts, list) else (),
    }
    steps = _steps(folder / "modules.json")
    if steps is not None:
        unknown = [kind for kind, _ in steps if kind not in _STEPS]
        if unknown:
            raise RequestError(
                f"This model's vectors need '{unknown[0]}', which is not supported.", param="model"
            )
        found["normalize"] = any(kind == "Normalize" for kind, _ in steps)
    place = next((path for kind, path in steps or () if kind == "Pooling"), "1_Pooling")
    settings = folder / place / "config.json"
    if settings.is_file():
        found["kind"] = _kind(read_json(settings))
    return Pooling.model_validate(found)


def _steps(file: Path) -> list[tuple[str, str]] | None:
    """The kind and the folder of each step; None where nothing is said."""
    if not file.is_file():
        return None
    return [
        (str(module.get("type", "")).rsplit(".", 1)[-1], str(module.get("path", "")))
        for module in read_objects(file)
    ]


def _kind(settings: dict[str, Any]) -> Kind:
    modes = {name: value for name, value in settings.items() if name.startswith("pooling_mode_")}
    given = settings.get("pooling_mode")
    wanted = [name for name, value in modes.items() if value] if given is None else [str(given)]
    if len(wanted) != 1 or wanted[0] not in _KINDS:
        raise RequestError(
            f"This model pools by {' and '.join(wanted) or 'nothing'}, which is not supported.",
            param="model",
        )
    return _KINDS[wanted[0]]
