"""Which arrays an array that is not evaluated is made from: MLX's own graph, read as text."""

# pyright: reportUnknownMemberType=false
# mlx's own stubs leave some parameters untyped.

import io
import re
from collections.abc import Collection, Mapping

import mlx.core as mx

_OPERATION = re.compile(r"\{ \d+ \[label.*")
_INPUT = re.compile(r'"([^"]+)" -> \d+')
_OUTPUT = re.compile(r'\d+ -> "([^"]+)"')


class Graph:
    """The graph that leads to the arrays of `ends`, in which those of `named` are known by name.

    An array that has been evaluated is an end of the graph: what it was made from is forgotten.
    """

    def __init__(self, ends: Mapping[str, mx.array], named: Mapping[str, mx.array]) -> None:
        # A copy is a node of its own, also where an array is both an end and named.
        copies = {name: mx.stop_gradient(array) for name, array in ends.items()}
        text = io.StringIO()
        mx.export_to_dot(text, **copies, **named)
        self._made_from: dict[str, list[str]] = {}
        inputs: list[str] = []
        for line in text.getvalue().splitlines():
            # After an operation come its inputs, then its outputs. Its number says nothing: that of
            # a compiled function is the same each time it is called.
            if _OPERATION.fullmatch(line):
                inputs = []
            elif edge := _INPUT.fullmatch(line):
                inputs.append(edge[1])
            elif edge := _OUTPUT.fullmatch(line):
                self._made_from[edge[1]] = inputs

    def origins(self, end: str, known: Collection[str], stops: Collection[str] = ()) -> set[str]:
        """The names in `known` that are met on the ways that lead to `end`; what is before those
        in `stops` is not looked at."""
        seen = {end}
        left = [end]
        while left:
            name = left.pop()
            if name in stops:
                continue
            new = {each for each in self._made_from.get(name, ()) if each not in seen}
            seen |= new
            left.extend(new)
        return seen.intersection(known)
