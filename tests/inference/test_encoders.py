"""Encoders: against what transformers computes of the same weights, and on their own.

`encoders.json` has, for each family, the first 16 numbers of the mean of the last hidden state of
each of `TEXTS`, by transformers 5.24 and torch 2.15 in float32 from the folder that `make_encoder`
makes: `AutoModel.from_pretrained(folder, attn_implementation="eager")`. (nomic_bert's folder needs
the settings under transformers' own names as well for that.)
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from exo.errors import EngineError, RequestError
from exo.inference.engine import EmbedSpec, SequenceSpec
from exo.inference.kernels.library import Library
from exo.inference.kernels.use import use_kernels
from exo.inference.mlx.encoder import Encoder
from exo.inference.mlx.encoder_engine import EncoderEngine
from exo.inference.mlx.encoder_loading import open_encoder
from exo.inference.mlx.encoding import EncoderEmbedder
from exo.inference.types import EmbedRequest, GenerateRequest, Sampling
from exo.models.encoder_names import sources
from exo.models.encoder_shape import ENCODERS, encoder_shape
from exo.models.pooling import Pooling
from tests.encoder_maker import FAMILIES, HIDDEN, LONGEST, WORDS, make_encoder, say_pooling
from tests.inference.loads import load_of

# One is longer than the windows, and than the distances that MPNet tells apart.
TEXTS = [list(range(5, 12)), [2, *range(20, 169)]]
SHORT = [[2, 9, 3], [2, 40, 41, 42, 43, 44, 3], [2, 3]]
RIGHT: dict[str, list[list[float]]] = json.loads(
    Path(__file__).with_name("encoders.json").read_text("utf-8")
)
MEAN = Pooling(kind="mean", normalize=False, size=HIDDEN)
Array = np.ndarray[Any, np.dtype[np.float32]]


@pytest.fixture(params=["kernels", "mlx"])
def kernels(request: pytest.FixtureRequest) -> Library | None:
    found = use_kernels() if request.param == "kernels" else None
    if request.param == "kernels" and found is None:
        pytest.skip("the CPU kernels are not built, or this is no CPU")
    return found


def vectors(
    model: Encoder, texts: Sequence[Sequence[int]], pooling: Pooling = MEAN, step: int = 1000
) -> list[Array]:
    embedder = EncoderEmbedder(model, pooling, step=step, limit=1000)
    embedder.add(EmbedSpec(7, texts))
    found: dict[int, Array] = {}
    last: list[bool] = []
    while not embedder.waiting:
        for one in embedder.step():
            found[one.index] = np.frombuffer(one.vector, "<f4")
            last.append(one.last)
    assert last == [False] * (len(texts) - 1) + [True]
    return [found[number] for number in range(len(texts))]


def opened(folder: Path, kernels: Library | None = None) -> Encoder:
    return open_encoder(folder, cast_float32=True, kernels=kernels)


# What they compute.


def test_every_family_is_tried():
    assert set(FAMILIES) | {"new"} == set(ENCODERS)  # "new" is what gte was called before.
    assert set(RIGHT) == set(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_states_are_those_of_transformers(tmp_path: Path, family: str, kernels: Library | None):
    model = opened(make_encoder(tmp_path / "m", family), kernels)
    for found, right in zip(vectors(model, TEXTS), RIGHT[family], strict=True):
        np.testing.assert_allclose(found[: len(right)], right, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "modernbert", "mpnet", "nomic_bert"])
def test_a_vector_has_the_same_bits_in_company(tmp_path: Path, family: str):
    kernels = use_kernels()
    if kernels is None:
        pytest.skip("only the CPU kernels promise this")
    model = opened(make_encoder(tmp_path / "m", family), kernels)
    texts = [*TEXTS, *SHORT]
    together = vectors(model, texts)
    for text, found in zip(texts, together, strict=True):
        [alone] = vectors(model, [text])
        assert alone.tobytes() == found.tobytes()


def test_company_changes_no_more_than_the_last_digits_without_kernels(tmp_path: Path):
    model = opened(make_encoder(tmp_path / "m"))
    texts = [*TEXTS, *SHORT]
    for text, found in zip(texts, vectors(model, texts), strict=True):
        np.testing.assert_allclose(vectors(model, [text])[0], found, atol=1e-5)


@pytest.mark.parametrize("step", [1, 100])
def test_a_long_text_is_computed_in_pieces(tmp_path: Path, step: int):
    model = opened(make_encoder(tmp_path / "m"))
    embedder = EncoderEmbedder(model, MEAN, step=step, limit=1000)
    embedder.add(EmbedSpec(1, [TEXTS[1]]))
    steps = [embedder.step() for _ in range({1: 3, 100: 2}[step])]
    assert [len(found) for found in steps] == [0] * (len(steps) - 1) + [1]
    [right] = vectors(model, [TEXTS[1]])
    assert np.frombuffer(steps[-1][0].vector, "<f4").tobytes() == right.tobytes()


@pytest.mark.parametrize("kind", ["mean", "last", "first"])
def test_states_are_pooled(tmp_path: Path, kind: Any):
    model = opened(make_encoder(tmp_path / "m"))
    pooling = Pooling(kind=kind, normalize=True, size=HIDDEN)
    for text, found in zip(SHORT, vectors(model, SHORT, pooling), strict=True):
        states = np.array(model(mx.array([text]), [len(text)])[0])
        right = {"mean": states.mean(0), "last": states[-1], "first": states[0]}[kind]
        np.testing.assert_allclose(found, right / np.linalg.norm(right), atol=1e-5)


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
def test_half_precision(tmp_path: Path, dtype: mx.Dtype, kernels: Library | None):
    model = opened(make_encoder(tmp_path / "m", dtype=dtype), kernels)
    [whole] = vectors(opened(make_encoder(tmp_path / "w"), kernels), TEXTS[:1])
    [found] = vectors(model, TEXTS[:1])
    cosine = float(found @ whole / np.linalg.norm(found) / np.linalg.norm(whole))
    assert cosine > 0.999


def test_what_is_removed_is_not_computed(tmp_path: Path):
    model = opened(make_encoder(tmp_path / "m"))
    embedder = EncoderEmbedder(model, MEAN, step=10, limit=1000)
    for name in (1, 2):
        embedder.add(EmbedSpec(name, TEXTS))
    embedder.step()
    embedder.remove(1)
    seen: set[int] = set()
    while not embedder.waiting:
        seen |= {one.sequence_id for one in embedder.step()}
    assert seen == {2}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_names_are_those_of_the_classes(family: str):
    shape = encoder_shape({"model_type": family, "vocab_size": WORDS, **FAMILIES[family]})
    flat = cast("list[tuple[str, mx.array]]", tree_flatten(Encoder(shape).parameters()))
    assert {name for name, _ in flat} == set(sources(family, shape))


# The engine.


def engine_of(folder: Path, **fields: Any) -> EncoderEngine:
    settings = {"context_length": 12, "encoder": True, **fields}
    engine = EncoderEngine()
    engine.load(load_of(folder, **settings), lambda _done, _total: None)
    return engine


def texts_of(engine: EncoderEngine, *inputs: Any, **fields: Any) -> list[list[int]]:
    request = EmbedRequest(request_id="r", inputs=[*inputs], **fields)
    return [list(text) for text in engine.prepare_texts(request).texts]


def test_the_engine(tmp_path: Path):
    folder = say_pooling(make_encoder(tmp_path / "m"), "cls_token")
    engine = engine_of(folder)
    engine.warm_up()
    assert engine.waiting
    texts = texts_of(engine, "w1 W2", [7, 8])
    assert texts == [[2, 5, 6, 3], [7, 8]]
    engine.embedder.add(EmbedSpec(1, texts))
    assert not engine.waiting
    assert engine.step() == []
    [one, two] = engine.embedder.step()
    assert [one.index, two.index] == [0, 1]
    assert engine.waiting
    pooling = Pooling(kind="first", normalize=True, size=HIDDEN)
    [right] = vectors(opened(folder, use_kernels()), texts[:1], pooling)
    assert one.vector == right.tobytes()


def test_a_text_is_cut_only_if_that_is_asked_for(tmp_path: Path):
    engine = engine_of(make_encoder(tmp_path / "m"))
    long = " ".join(f"w{number}" for number in range(20))
    assert [len(text) for text in texts_of(engine, long)] == [22]
    [cut] = texts_of(engine, long, truncate=True)
    assert cut == [2, *range(4, 14), 3]
    with pytest.raises(RequestError) as caught:
        texts_of(engine, long, dimensions=8)
    assert caught.value.param == "dimensions"


def test_a_batch_fits_into_the_memory_for_it(tmp_path: Path):
    engine = engine_of(make_encoder(tmp_path / "m"), kv_tokens=20)
    assert engine.embedder.room([[1] * 9] * 5) == 18


def test_it_tells_what_a_text_is_and_answers_nothing(tmp_path: Path):
    engine = engine_of(make_encoder(tmp_path / "m"))
    dry = GenerateRequest(request_id="r", prompt="w1 w2", dry=True)
    prepared = engine.prepare(dry)
    assert (list(prepared.prompt), prepared.text) == ([2, 5, 6, 3], "[CLS] w1 w2 [SEP]")
    messages = [{"role": "user", "content": "w1"}]
    for request in (
        GenerateRequest(request_id="r", messages=messages),
        GenerateRequest(request_id="r", messages=messages, dry=True),
        GenerateRequest(request_id="r", prompt="w1"),
    ):
        with pytest.raises(RequestError, match="vectors") as caught:
            engine.prepare(request)
        assert caught.value.param == "model"
    with pytest.raises(RequestError):
        engine.add([SequenceSpec(1, [1], 1, Sampling(temperature=0))])


def test_nothing_is_made_before_it_is_loaded():
    engine = EncoderEngine()
    with pytest.raises(EngineError):
        _ = engine.embedder
    with pytest.raises(EngineError):
        texts_of(engine, "a")


def test_the_longest_text_fills_the_table_of_positions(tmp_path: Path):
    model = opened(make_encoder(tmp_path / "m", "roberta"))
    text = [*range(4, 4 + LONGEST)]
    assert np.isfinite(vectors(model, [text])[0]).all()
