import mlx.core as mx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo.models.card import ModelCard
from exo.models.folder import read_card
from exo.models.registry import Registry
from exo.models.weights import Part, Tensor, weights_of
from tests.cluster.factory import card
from tests.models_maker import HIDDEN, VOCABULARY, make_model


def summed(card: ModelCard) -> Part:
    parts = card.parts
    everything = (*parts.layers, parts.embedding, parts.head, parts.shared)
    return sum(everything, Part(total=0))


def tensors(*names: str, size: int = 10) -> list[Tensor]:
    return [Tensor(name, size, False) for name in names]


@pytest.mark.parametrize("files", [1, 3])
@pytest.mark.parametrize("bits", [None, 4])
def test_every_byte_of_a_folder_is_in_one_part(tmp_path, files: int, bits: int | None):
    card = read_card(make_model(tmp_path / "m", files=files, bits=bits, dtype=mx.float16))
    assert summed(card) == Part(total=card.storage_size, packed=card.packed_size)
    assert len(card.parts.layers) == 3
    assert card.weights is not None
    assert not card.weights.tied
    assert len(card.weights.layers) == 1, "layers that are alike are told once"
    if bits is None:
        assert card.weights.embedding.total == 2 * VOCABULARY * HIDDEN
        assert card.weights.head.total == 2 * (VOCABULARY + 1) * HIDDEN


def test_layers_are_found_whatever_the_list_is_called():
    for stem in ("model.layers", "layers", "transformer.h", "language_model.model.layers"):
        parts = weights_of(
            tensors(f"{stem}.0.a", f"{stem}.1.a", f"{stem}.1.experts.7.b", "wte.weight"),
            2,
            tied=False,
        )
        assert parts is not None
        assert [part.total for part in parts.layers] == [10, 20]
        assert parts.embedding.total == 10


def test_a_list_of_another_length_is_not_taken_for_the_layers():
    names = ("model.layers.0.a", "model.layers.1.a", "vision.blocks.0.a", "lm_head.weight")
    parts = weights_of(tensors(*names), 2, tied=False)
    assert parts is not None
    assert [part.total for part in parts.layers] == [10]
    assert parts.embedding.total == 10
    assert weights_of(tensors("layers.0.a"), 2, tied=False) is None


def test_what_lies_past_the_list_is_counted_with_the_last_layer():
    parts = weights_of(tensors("layers.0.a", "layers.1.a", "layers.2.draft"), 2, tied=False)
    assert parts is not None
    assert [part.total for part in parts.layers] == [10, 20]


def test_a_model_without_a_head_of_its_own_is_tied():
    names = ["layers.0.a", "embed_tokens.weight"]
    norm = Tensor("norm.weight", 1, False)
    for tied, head in ((True, [norm]), (False, [norm, *tensors("lm_head.weight")])):
        parts = weights_of([*tensors(*names), *head], 1, tied=False)
        assert parts is not None
        assert parts.tied is tied


def test_embeddings_of_every_layer_are_needed_everywhere():
    names = ("layers.0.a", "embed_tokens.weight", "embed_tokens_per_layer.weight")
    parts = weights_of(tensors(*names), 1, tied=True)
    assert parts is not None
    assert parts.shared.total == 10


def test_shipped_cards_have_parts_that_add_up(tmp_path):
    for shipped in Registry(tmp_path).all():
        assert summed(shipped) == Part(total=shipped.storage_size, packed=shipped.packed_size)
        parts = shipped.parts
        assert all(0 < part.packed <= part.total for part in parts.layers) or not (
            shipped.packed_size
        )
        assert 0 < parts.embedding.total < shipped.storage_size


@given(
    layers=st.integers(1, 200),
    storage=st.integers(0, 10**12),
    share=st.floats(0, 1),
    quantised=st.booleans(),
)
def test_an_estimate_adds_up(layers: int, storage: int, share: float, quantised: bool):
    fields = {"quantization": {"bits": 4, "group_size": 64}} if quantised else {}
    packed = int(storage * share) if quantised else 0
    made = card(n_layers=layers, storage_size=storage, packed_size=packed, **fields)
    assert summed(made) == Part(total=storage, packed=packed)
    assert len(made.parts.layers) == layers


@pytest.mark.parametrize(
    ("cuts", "expected"),
    [(None, (0, 1, 2, 3, 4)), ((), (0, 4)), ((2,), (0, 2, 4)), ((3, 1, 0, 4), (0, 1, 3, 4))],
)
def test_boundaries_are_the_ends_and_the_cuts_between(cuts, expected):
    assert card(cuts=cuts).boundaries == expected
