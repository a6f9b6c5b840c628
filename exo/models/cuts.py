"""Where the list of layers of an architecture may be cut, by its `config.json` alone.

Layers that use the keys and values of an earlier one must stay on its node. What holds for an
architecture is what `exo.inference.mlx.trace` finds out from the model's own code; this rule says
it where there is no MLX, and a test compares the two.
"""

from collections.abc import Callable, Iterable
from typing import Any

Config = dict[str, Any]
# The first and the last layer of some that must be on one node.
Bound = tuple[int, int]


def cuts(config: Config) -> tuple[int, ...] | None:
    """The layers before which the list may be cut, for a model with this `config.json`; None if
    before any, empty if nowhere."""
    text = {**config, **config["text_config"]} if _has_text_part(config) else config
    bounds_of = _BOUNDS.get(str(config.get("model_type", "")))
    if bounds_of is None:
        return None
    try:
        n_layers, bounds = bounds_of(text)
    except (KeyError, TypeError, ValueError, IndexError):
        return ()  # No model can be made of such a config either.
    if not bounds:
        return None
    inside = {cut for first, last in bounds for cut in range(first + 1, last + 1)}
    return tuple(cut for cut in range(1, n_layers) if cut not in inside)


def _has_text_part(config: Config) -> bool:
    return isinstance(config.get("text_config"), dict)


def _gemma(config: Config) -> tuple[int, list[Bound]]:
    """The last layers use the keys and values of the last layer of their type before them."""
    n_layers = int(config.get("num_hidden_layers", 35))
    shared = int(config.get("num_kv_shared_layers", 20))
    types: list[str] = config.get("layer_types") or _gemma_types(config, n_layers)
    first_shared = n_layers - shared
    found: list[Bound] = []
    for kind in set(types[first_shared:n_layers]) if shared else ():
        source = max(at for at in range(first_shared) if types[at] == kind)
        user = max(at for at in range(n_layers) if types[at] == kind)
        found.append((source, user))
    return n_layers, found


def _gemma_types(config: Config, n_layers: int) -> list[str]:
    pattern = int(config.get("sliding_window_pattern", 5))
    return ["full" if (at + 1) % pattern == 0 else "sliding" for at in range(n_layers)]


def _afm7(config: Config) -> tuple[int, list[Bound]]:
    """The last layers all use the keys and values of the one before them."""
    n_layers, reusing = int(config["num_layers"]), int(config["num_kv_reuse_layers"])
    return n_layers, [(n_layers - reusing - 1, n_layers - 1)] if reusing else []


def _deepseek_v41(config: Config) -> tuple[int, list[Bound]]:
    """Some layers compress their keys and values; the layers after them use these."""
    n_layers = int(config.get("num_hidden_layers", 40))
    ratios: list[int] = list(config.get("compress_ratios", ()))
    sources = [at for at in config.get("kv_source_layer_ids", ()) if _at(ratios, at)]
    indexed = set(config.get("index_source_layer_ids", ()))
    keyed = [at for at in config.get("kv_source_layer_ids", ()) if at in indexed]
    found: list[Bound] = []
    for layer in range(n_layers):
        if not _at(ratios, layer):
            continue
        used = [_last(sources, layer), _last(keyed, layer) if layer in indexed else None]
        found += [(source, layer) for source in used if source is not None and source < layer]
    return n_layers, found


def _at(ratios: list[int], layer: int) -> int:
    return ratios[layer] if layer < len(ratios) else 0


def _last(layers: Iterable[int], up_to: int) -> int | None:
    return max((layer for layer in layers if layer <= up_to), default=None)


def _nanbeige(config: Config) -> tuple[int, list[Bound]]:
    """All layers are computed several times over."""
    weights: list[float] = config.get("loop_loss_weights") or []
    loops = len(weights) + 1 if weights else int(config.get("num_loops", 1))
    return _whole(config) if loops > 1 else (int(config["num_hidden_layers"]), [])


def _whole(config: Config) -> tuple[int, list[Bound]]:
    n_layers = int(config["num_hidden_layers"])
    return n_layers, [(0, n_layers - 1)]


_BOUNDS: dict[str, Callable[[Config], tuple[int, list[Bound]]]] = {
    "afm7": _afm7,
    "deepseek_v41": _deepseek_v41,
    "gemma3n": _gemma,
    "gemma4": _gemma,
    "gemma4_text": _gemma,
    "iquestloopcoder": _whole,
    "nanbeige": _nanbeige,
}
