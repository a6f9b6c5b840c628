"""Vectors of texts: against mlx-lm's hidden states, pooled by numpy in 64 bits."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx import nn

from exo.errors import RequestError
from exo.inference.embedding import batches
from exo.inference.engine import EmbedSpec
from exo.inference.mlx import loading
from exo.inference.mlx.embedding import MlxEmbedder, find_trunk
from exo.inference.mlx.engine import MlxEngine
from exo.inference.types import EmbedRequest
from exo.models.pooling import Pooling, read_pooling
from tests.inference.loads import load_of
from tests.models_maker import HIDDEN, make_model

TEXTS = [[7, 8, 9], [5], list(range(20, 59)), [7, 8, 10], list(range(300, 311))]
Array = np.ndarray[Any, np.dtype[np.float64]]


# Which texts are computed together.


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 60), st.integers(1, 9))
def test_batches(lengths: list[int], limit: int, rows: int):
    found = batches(lengths, limit, rows=rows)
    assert sorted(number for batch in found for number in batch) == list(range(len(lengths)))
    for batch in found:
        widths = [lengths[number] for number in batch]
        assert widths[0] == max(widths)
        assert len(batch) <= rows
        assert len(batch) == 1 or len(batch) * widths[0] <= limit


def test_texts_of_like_length_are_together():
    assert batches([1, 9, 2, 8], 20, rows=8) == [[1, 3], [2, 0]]


# What they come to.


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny", dtype=mx.float32)


@pytest.fixture(scope="module")
def model(folder: Path) -> nn.Module:
    return loading.open_whole(folder, cast_float32=True).stage.model


def vectors(model: nn.Module, pooling: Pooling, step: int, **fields: Any) -> list[Array]:
    embedder = MlxEmbedder(model, pooling, step=step, batchable=fields.pop("batchable", True))
    embedder.add(EmbedSpec(sequence_id=4, texts=TEXTS, **fields))
    found: dict[int, Array] = {}
    ended: list[bool] = []
    while not embedder.waiting:
        for one in embedder.step():
            assert one.sequence_id == 4
            found[one.index] = np.frombuffer(one.vector, "<f4").astype(np.float64)
            ended.append(one.last)
    assert ended == [False] * (len(TEXTS) - 1) + [True]
    return [found[number] for number in range(len(TEXTS))]


def reference(model: Any, kind: str) -> list[Array]:
    """Each text alone, without a cache."""
    found: list[Array] = []
    for text in TEXTS:
        states = np.array(model.model(mx.array([text]))[0]).astype(np.float64)
        found.append({"mean": states.mean(0), "last": states[-1], "first": states[0]}[kind])
    return found


@pytest.mark.parametrize("step", [4, 40, 1000])
@pytest.mark.parametrize("kind", ["mean", "last", "first"])
def test_states_are_pooled(model: nn.Module, kind: Any, step: int):
    pooling = Pooling(kind=kind, normalize=False, size=HIDDEN)
    for found, right in zip(vectors(model, pooling, step), reference(model, kind), strict=True):
        np.testing.assert_allclose(found, right, atol=2e-4)


def test_a_vector_does_not_depend_on_its_company(model: nn.Module):
    pooling = Pooling(kind="mean", normalize=True, size=HIDDEN)
    alone = vectors(model, pooling, 40, batchable=False)
    for one, together in zip(alone, vectors(model, pooling, 1000), strict=True):
        np.testing.assert_allclose(one, together, atol=1e-6)


def test_a_vector_that_is_cut_has_length_1(model: nn.Module):
    pooling = Pooling(kind="last", normalize=True, size=HIDDEN, cut=True)
    for found, right in zip(
        vectors(model, pooling, 40, dimensions=8), reference(model, "last"), strict=True
    ):
        cut = right[:8]
        np.testing.assert_allclose(found, cut / np.linalg.norm(cut), atol=2e-5)


def test_what_is_removed_is_not_computed(model: nn.Module):
    embedder = MlxEmbedder(
        model, Pooling(kind="last", normalize=True, size=HIDDEN), step=4, batchable=True
    )
    for name in (1, 2):
        embedder.add(EmbedSpec(sequence_id=name, texts=TEXTS))
    embedder.step()
    embedder.remove(1)
    embedder.remove(3)
    seen: set[int] = set()
    while not embedder.waiting:
        seen |= {one.sequence_id for one in embedder.step()}
    assert seen == {2}
    assert embedder.room(TEXTS) == 39


def test_one_rank_of_several_makes_none(folder: Path):
    assert engine_of(folder, size=2, end_layer=2).embedder is None


def test_a_model_without_hidden_states(model: nn.Module):
    with pytest.raises(RequestError) as caught:
        find_trunk(model, HIDDEN + 1)
    assert caught.value.param == "model"
    with pytest.raises(RequestError):
        find_trunk(nn.Linear(4, 4), 4)


# The engine.


def engine_of(folder: Path, **fields: Any) -> MlxEngine:
    engine = MlxEngine()
    engine.load(load_of(folder, **fields), lambda _done, _total: None)
    return engine


@pytest.mark.parametrize("bits", [None, 4])
def test_the_engine(tmp_path: Path, bits: int | None):
    folder = make_model(tmp_path / "m", bits=bits, dtype=mx.bfloat16)
    engine = engine_of(folder)
    request = EmbedRequest(
        request_id="r", inputs=["a" * 200, [4, 5, 6]], truncate=True, dimensions=HIDDEN
    )
    long, short = engine.prepare_texts(request).texts
    assert (len(long), list(short)) == (32, [4, 5, 6])
    assert engine.waiting
    embedder = engine.embedder
    assert embedder is not None
    embedder.add(EmbedSpec(1, [long, short]))
    assert not engine.waiting
    assert engine.step() == []
    found = [one for _ in range(2) for one in embedder.step()]
    assert [one.index for one in found] == [0, 1]
    assert engine.waiting
    for one in found:
        assert abs(np.linalg.norm(np.frombuffer(one.vector, "<f4")) - 1) < 1e-5
    with pytest.raises(RequestError) as caught:
        engine.prepare_texts(request.model_copy(update={"dimensions": 8}))
    assert caught.value.param == "dimensions"


# What a folder says.


def write(folder: Path, **files: Any) -> Path:
    config = {"hidden_size": 64, **files.pop("config", {})}
    for name, content in {"config": config, **files}.items():
        file = folder / f"{name.replace('__', '/')}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content))
    return folder


def modules(*kinds: str) -> list[dict[str, str]]:
    paths = {"Pooling": "1_Pooling"}
    return [
        {"type": f"sentence_transformers.models.{kind}", "path": paths.get(kind, "")}
        for kind in kinds
    ]


def modes(*names: str) -> dict[str, Any]:
    known = ["cls_token", "mean_tokens", "max_tokens", "lasttoken"]
    return {f"pooling_mode_{name}": name in names for name in known}


def test_a_folder_that_says_nothing(tmp_path: Path):
    found = read_pooling(write(tmp_path))
    assert found == Pooling(kind="last", normalize=True, size=64)


@pytest.mark.parametrize(
    ("mode", "kind"), [("cls_token", "first"), ("mean_tokens", "mean"), ("lasttoken", "last")]
)
@pytest.mark.parametrize("normalize", [True, False])
def test_a_folder_that_says_it(tmp_path: Path, mode: str, kind: str, normalize: bool):
    kinds: Sequence[str] = ["Transformer", "Pooling", *(["Normalize"] if normalize else [])]
    found = read_pooling(
        write(tmp_path, modules=modules(*kinds), **{"1_Pooling__config": modes(mode)})
    )
    assert (found.kind, found.normalize) == (kind, normalize)


@pytest.mark.parametrize(
    "files",
    [
        {"1_Pooling__config": modes("max_tokens")},
        {"1_Pooling__config": modes("mean_tokens", "cls_token")},
        {"1_Pooling__config": modes()},
        {"modules": modules("Transformer", "Pooling", "Dense")},
        {"modules": {"a": 1}},
        {"config": {"is_causal": False}},
        {"config": {"text_config": {"use_bidirectional_attention": True}}},
    ],
)
def test_a_folder_that_asks_for_more(tmp_path: Path, files: dict[str, Any]):
    with pytest.raises(RequestError):
        read_pooling(write(tmp_path, **files))


def test_which_dimensions_may_be_asked_for(tmp_path: Path):
    plain = read_pooling(write(tmp_path))
    plain.check(None)
    plain.check(64)
    cut = read_pooling(write(tmp_path, config={"is_matryoshka": True}))
    cut.check(5)
    some = read_pooling(write(tmp_path, config={"matryoshka_dimensions": [16, 32]}))
    some.check(16)
    for pooling, dimensions in ((plain, 32), (cut, 65), (some, 17)):
        with pytest.raises(RequestError) as caught:
            pooling.check(dimensions)
        assert caught.value.param == "dimensions"
