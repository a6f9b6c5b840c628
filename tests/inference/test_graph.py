"""MLX's own graph says what an array is made from: the form in which it is told is relied on."""

import mlx.core as mx
import pytest

from exo.inference.mlx.graph import Graph

NAMES = {"a", "b", "c"}


@pytest.fixture
def arrays() -> dict[str, mx.array]:
    return {name: mx.zeros((2, 3)) for name in NAMES}


def test_what_an_array_is_made_from(arrays):
    graph = Graph({"end": (arrays["a"] + 1) @ arrays["b"].T}, arrays)
    assert graph.origins("end", NAMES) == {"a", "b"}


def test_an_array_that_is_named_itself(arrays):
    assert Graph({"end": arrays["a"]}, arrays).origins("end", NAMES) == {"a"}


def test_what_is_before_a_stop_is_not_looked_at(arrays):
    middle = arrays["a"] * 2
    graph = Graph({"end": middle + arrays["b"]}, {**arrays, "middle": middle})
    assert graph.origins("end", {*NAMES, "middle"}, {"middle"}) == {"middle", "b"}


def test_a_change_in_place_adds_to_what_an_array_is_made_from(arrays):
    changed = mx.stop_gradient(arrays["a"])
    changed[1:] = arrays["b"][1:]
    assert Graph({"end": changed}, arrays).origins("end", NAMES) == {"a", "b"}
    assert Graph({"end": arrays["a"]}, arrays).origins("end", NAMES) == {"a"}


def test_calls_of_one_compiled_function_are_told_apart(arrays):
    mx.enable_compile()
    try:
        double = mx.compile(lambda x: x * 2 + 1)
        graph = Graph({"one": double(arrays["a"]), "other": double(arrays["b"])}, arrays)
    finally:
        mx.disable_compile()
    assert graph.origins("one", NAMES) == {"a"}
    assert graph.origins("other", NAMES) == {"b"}


def test_an_operation_with_several_results(arrays):
    first, second = mx.split(arrays["a"], 2)
    graph = Graph({"one": first, "other": second + arrays["c"]}, arrays)
    assert graph.origins("one", NAMES) == {"a"}
    assert graph.origins("other", NAMES) == {"a", "c"}


def test_what_has_been_evaluated_is_forgotten(arrays):
    end = arrays["a"] + 1
    mx.eval(end)
    assert Graph({"end": end}, arrays).origins("end", NAMES) == set()
