"""Some of a model's layers, for any architecture whose layers are called one after the other.

The model's own code runs on every rank, with a list of layers of full length. A layer before this
rank's own computes nothing, but returns what came over the ring; the last of this rank's own ends
the pass. So masks, positions, indices and everything that is done between the layers stay as the
model's authors wrote them, and since MLX is lazy, what only other ranks' layers would need (the
embedding, the head) is never computed, nor read from disk.
"""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

from collections.abc import Mapping, Sequence
from typing import Any, cast

import mlx.core as mx
from mlx import nn

from exo.errors import ModelInvalid, RingError
from exo.inference.mlx.adapter import Cache, make_prompt_cache
from exo.inference.mlx.exchange import Path, arguments, build, look_up, write
from exo.inference.mlx.held import KvForm
from exo.inference.mlx.places import Places
from exo.inference.mlx.plan import Leaf, SplitPlan
from exo.inference.mlx.replaced import Call, Replacement, put_aside, replace_call
from exo.inference.mlx.trace import layers_of

_NOTHING = (0,)  # The shape of what is sent where there is no array.


class _Reached(Exception):
    """The last of the own layers has been computed."""


class SplitStage:
    """Layers [start, end) of a model: a `Stage`. The model is changed for it, for good.

    Raises:
        ModelInvalid: the layers cannot be cut there.
    """

    def __init__(
        self,
        model: nn.Module,
        plan: SplitPlan,
        start: int,
        end: int,
        form: KvForm | None = None,
    ) -> None:
        _check(plan, start, end)
        self.model = model
        self._form = form or KvForm()
        self.last = end == plan.n_layers
        self._places = Places(make_prompt_cache(model), plan, start, end)
        self._borders = _Borders(plan, start, end)
        layers = layers_of(model)
        for index in range(start):
            replace_call(layers[index], self._borders.come(index))
        for index in self._borders.leavers():
            replace_call(layers[index], self._borders.leave(index))
        after = [plan.n_layers] if self.last else []
        put_aside(model, layers[start:end], plan.needed([*range(start, end), *after]))

    def make_cache(self) -> list[Cache]:
        own, shadows = self._places.of(make_prompt_cache(self.model))
        return [*self._form.of(own), *shadows]

    def __call__(
        self, tokens: mx.array, inputs: Sequence[mx.array], cache: list[Cache]
    ) -> list[mx.array]:
        self._borders.open(tokens, inputs)
        try:
            outputs = [cast("Call", self.model)(tokens, cache=self._places.everywhere(cache))]
        except _Reached:
            outputs = self._borders.outputs()
        finally:
            self._borders.close()
        self._places.advance(cache, tokens)
        return outputs


class _Borders:
    """What comes over the borders of a stage in one pass, and what goes. The model's layers are
    given its methods, so it must not know the model: a circle would be freed too late."""

    def __init__(self, plan: SplitPlan, start: int, end: int) -> None:
        self._plan = plan
        self._start, self._end = start, end
        self._arriving = plan.travelling(start)
        self._leaving = plan.travelling(end) if end < plan.n_layers else None
        self._tokens = mx.zeros((1, 1), dtype=mx.int32)
        self._arrays: dict[Leaf, mx.array | None] = {}

    def open(self, tokens: mx.array, inputs: Sequence[mx.array]) -> None:
        if len(inputs) != len(self._arriving):
            raise RingError(f"{len(inputs)} tensors came where {len(self._arriving)} were due.")
        self._tokens = tokens
        self._arrays = {
            leaf: None if array.shape == _NOTHING else array
            for leaf, array in zip(self._arriving, inputs, strict=True)
        }

    def outputs(self) -> list[mx.array]:
        arrays = [self._arrays[leaf] for leaf in self._leaving or ()]
        return [mx.zeros(_NOTHING) if array is None else array for array in arrays]

    def close(self) -> None:
        self._arrays = {}

    def leavers(self) -> list[int]:
        """The own layers of which something is to be sent, and the last one."""
        if self._leaving is None:
            return []
        own = {leaf.layer for leaf in self._leaving if leaf.layer >= self._start}
        return sorted(own | {self._end - 1})

    def come(self, index: int) -> Replacement:
        """In the place of a layer of an earlier rank."""
        form = self._plan.forms[index]
        written = [
            leaf for leaf in self._arriving if leaf.layer == index and leaf.path[0] is not None
        ]

        def come(own: Call, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
            del own
            given = arguments(args, kwargs)
            for leaf in written:
                name, *path = leaf.path
                write(given[cast("str", name)], tuple(path), self._arrays[leaf])
            return build(form, lambda path: self._stand_in(index, path), given)

        return come

    def _stand_in(self, index: int, path: Path) -> mx.array:
        """What came from a layer, or something of the same shape that nobody will read. A copy:
        the model may change it in place."""
        for layer in (index, self._start - 1):
            array = self._arrays.get(Leaf(layer, path))
            if array is not None:
                return mx.stop_gradient(array)
        rows, length = self._tokens.shape
        return self._plan.shapes[Leaf(index, path)].zeros(rows, length)

    def leave(self, index: int) -> Replacement:
        """Around an own layer of which something is to be sent."""
        leaving = [leaf for leaf in self._leaving or () if leaf.layer == index]

        def leave(own: Call, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
            result = own(*args, **kwargs)
            values: Mapping[Any, Any] = {**arguments(args, kwargs), None: result}
            for leaf in leaving:
                array = look_up(values[leaf.path[0]], leaf.path[1:])
                # A copy: the model may change it in place.
                self._arrays[leaf] = None if array is None else mx.stop_gradient(array)
            if index == self._end - 1:
                raise _Reached
            return result

        return leave


def _check(plan: SplitPlan, start: int, end: int) -> None:
    if not 0 <= start < end <= plan.n_layers:
        raise ModelInvalid(f"A model of {plan.n_layers} layers has no layers {start}-{end}.")
    for cut in {start, end} - {0, plan.n_layers}:
        obstacle = plan.obstacle(cut)
        if obstacle is not None:
            valid = ", ".join(map(str, sorted(plan.valid_cuts))) or "no layer"
            raise ModelInvalid(
                f"The layers of this model ({plan.architecture}) cannot be cut before layer {cut}: "
                f"{obstacle}.",
                hint=f"They may be cut before {valid}.",
            )
