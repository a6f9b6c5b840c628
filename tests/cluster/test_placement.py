from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo.cluster.placement import (
    DEFAULT_CONCURRENCY,
    DEFAULT_CONTEXT,
    LayerRange,
    NodeResources,
    Wanted,
    place,
)
from exo.cluster.state import NGRAM, Draft, InstanceMeta, Shard, Sharding
from exo.errors import PlacementImpossible
from exo.models.card import ModelCard, Task
from exo.models.shares import Shares
from tests.cluster.factory import GIB, card, resources

QUANTISED = {"quantization": {"bits": 4, "group_size": 64}, "packed_size": 800_000}


def test_all_layers_go_to_the_node_that_has_the_memory():
    placement = place(card(), Wanted(), [resources()])
    (shard,) = placement.shards
    assert (shard.start_layer, shard.end_layer, shard.node_id) == (0, 4, "a")
    assert placement.memory_by_node == {"a": shard.memory}
    assert placement.context_length == 2048
    assert placement.concurrency == DEFAULT_CONCURRENCY


def test_on_a_cpu_half_precision_becomes_float32_if_that_fits():
    half = card(storage_size=3 * GIB)
    roomy, tight = resources(8 * GIB), resources(4 * GIB)
    assert place(half, Wanted(), [roomy]).shards[0].cast_float32
    assert not place(half, Wanted(), [tight]).shards[0].cast_float32


def test_on_a_cpu_packed_weights_always_get_float32_scales():
    assert place(card(**QUANTISED), Wanted(), [resources()]).shards[0].cast_float32


def test_on_a_gpu_nothing_is_cast():
    (shard,) = place(card(**QUANTISED), Wanted(), [resources(kind="metal")]).shards
    assert not shard.cast_float32


def test_a_long_context_is_not_the_default():
    assert place(card(context_length=10**6), Wanted(), [resources()]).context_length == (
        DEFAULT_CONTEXT
    )


def test_a_context_that_is_asked_for_is_given_or_refused():
    assert place(card(), Wanted(context_length=100), [resources()]).context_length == 100
    with pytest.raises(PlacementImpossible, match=r"4096 tokens .* made for 2048"):
        place(card(), Wanted(context_length=4096), [resources()])


def test_one_instance_leaves_memory_for_others():
    large = card(n_layers=32, n_kv_heads=8, head_dim=128, context_length=32768)
    placement = place(large, Wanted(), [resources(64 * GIB)])
    assert placement.shards[0].memory < 32 * GIB


def test_too_little_memory_is_said_with_the_numbers():
    with pytest.raises(PlacementImpossible, match=r"needs 20\.\d\d GiB on a and 8\.00 GiB"):
        place(card(storage_size=20 * GIB, dtype="float32"), Wanted(), [resources()])


@pytest.mark.parametrize(
    ("wanted", "match"),
    [
        (Wanted(min_nodes=2), "2 nodes are asked for and the cluster has 1"),
        (Wanted(instance_meta=InstanceMeta.TCP), "two nodes or more, and the cluster has 1"),
        (Wanted(sharding=Sharding.TENSOR), "split by tensors"),
    ],
)
def test_what_cannot_be_says_why(wanted: Wanted, match: str):
    with pytest.raises(PlacementImpossible, match=match):
        place(card(), wanted, [resources()])


def test_no_node_is_said():
    with pytest.raises(PlacementImpossible, match="No node"):
        place(card(), Wanted(), [])


def test_the_node_that_holds_it_is_chosen():
    nodes = [resources(GIB // 100, node_id="small"), resources(node_id="large")]
    assert place(card(), Wanted(), nodes).shards[0].node_id == "large"


@given(
    free=st.integers(0, 64 * GIB),
    size=st.integers(1, 64 * GIB),
    layers=st.integers(1, 100),
    context=st.integers(1, 10**6),
    kind=st.sampled_from(["cpu", "metal", "cuda"]),
    quantised=st.booleans(),
    concurrency=st.one_of(st.none(), st.integers(1, 1024)),
)
def test_a_placement_covers_every_layer_once_and_is_never_over_memory(
    free: int, size: int, layers: int, context: int, kind: str, quantised: bool, concurrency
):
    packed = {"quantization": {"bits": 4, "group_size": 64}, "packed_size": size // 2}
    model = card(
        storage_size=size,
        n_layers=layers,
        context_length=context,
        **(packed if quantised else {}),
    )
    try:
        placement = place(model, Wanted(concurrency=concurrency), [resources(free, kind)])
    except PlacementImpossible:
        return
    assert [x for s in placement.shards for x in range(s.start_layer, s.end_layer)] == list(
        range(layers)
    )
    assert sum(placement.memory_by_node.values()) <= free
    assert placement.kv_tokens >= placement.context_length >= 1
    assert placement.context_length <= context


HALF_GIB = GIB // 2


def test_a_draft_model_takes_its_memory_from_the_first_node_only():
    model = card(n_layers=4, storage_size=4 * GIB, dtype="float32", hidden_size=512)
    draft = Draft(name="d", card=card("d", storage_size=HALF_GIB, dtype="float32", n_layers=1))
    nodes = [resources(3 * GIB, node_id=name) for name in "ab"]
    asked = {"min_nodes": 2, "context_length": 100, "concurrency": 1}
    plain = place(model, Wanted(**asked), nodes)
    drafting = place(model, Wanted(**asked, draft=draft), nodes)
    assert [s.end_layer - s.start_layer for s in plain.shards] == [2, 2]
    assert [s.end_layer - s.start_layer for s in drafting.shards] == [2, 2]
    more = [b.memory - a.memory for a, b in zip(plain.shards, drafting.shards, strict=True)]
    assert HALF_GIB <= more[0] < HALF_GIB + GIB // 10
    assert more[1] == 0
    with pytest.raises(PlacementImpossible, match="over 2 nodes"):
        place(
            model,
            Wanted(**asked, draft=draft),
            [resources(int(2.3 * GIB), node_id=n) for n in "ab"],
        )


def test_a_node_without_the_draft_model_is_not_the_first_one():
    draft = Draft(name="d", card=card("d"))
    a, b = resources(node_id="a"), replace(resources(node_id="b"), has_draft=False)
    assert place(card(), Wanted(draft=draft), [b, a]).shards[0].node_id == "a"
    halves = [
        LayerRange(node="a", start_layer=0, end_layer=2),
        LayerRange(node="b", start_layer=2, end_layer=4),
    ]
    assert len(place(card(), Wanted(draft=draft, layers=tuple(halves)), [a, b]).shards) == 2
    turned = (
        LayerRange(node="b", start_layer=0, end_layer=2),
        LayerRange(node="a", start_layer=2, end_layer=4),
    )
    with pytest.raises(PlacementImpossible, match="draft model d are not on b") as error:
        place(card(), Wanted(draft=draft, layers=turned), [a, b])
    assert error.value.param == "draft"


def test_quantised_keys_and_values_leave_room_for_a_longer_context():
    deep = card(n_layers=32, n_kv_heads=8, head_dim=128, context_length=131072, dtype="float32")

    def most(bits: int | None) -> int:
        wanted = Wanted(kv_bits=bits, context_length=65536, concurrency=1)
        return place(deep, wanted, [resources(64 * GIB)]).shards[0].memory

    assert most(None) > 16 * GIB
    assert 4 * GIB < most(8) < 5 * GIB
    assert 2 * GIB < most(4) < 3 * GIB


def with_kernels(kernels: str | None) -> NodeResources:
    found = resources(64 * GIB)
    assert found.device
    return replace(found, device=found.device.model_copy(update={"kernels": kernels}))


def test_the_kernels_hold_mxfp8_in_twice_its_size():
    def memory(mode: str) -> int:
        packed = {"quantization": {"bits": 8, "group_size": 32, "mode": mode}}
        model = card(**packed, storage_size=3 * GIB, packed_size=2 * GIB)
        return place(model, Wanted(), [with_kernels("avx2")]).shards[0].memory

    assert memory("mxfp8") - memory("affine") == 2 * GIB


def test_where_kernels_compute_keys_and_values_stay_in_half_precision():
    deep = card(n_layers=32, n_kv_heads=8, head_dim=128, context_length=131072)
    wanted = Wanted(context_length=65536, concurrency=1)

    def shard(model: ModelCard = deep, kernels: str | None = "avx2", **more: int) -> Shard:
        return place(model, wanted.model_copy(update=more), [with_kernels(kernels)]).shards[0]

    assert (shard().kv_dtype, shard(kernels=None).kv_dtype) == ("bfloat16", "")
    assert shard().memory < shard(kernels=None).memory - 7 * GIB
    assert shard(kv_bits=8).kv_dtype == ""
    assert shard(deep.model_copy(update={"tasks": (Task.EMBEDDING,)})).kv_dtype == ""
    for other in (
        {"dtype": "float32"},
        {"architecture": "gemma2"},
        {"head_dim": 88},
        {"shares": Shares(parts={}, latent=True)},
    ):
        assert shard(deep.model_copy(update=other)).kv_dtype == ""


ENCODER = card(tasks=(Task.EMBEDDING,), cuts=(), context_length=512)


def test_an_encoder_needs_memory_for_one_batch():
    placed = place(ENCODER, Wanted(), [resources()])
    assert (placed.context_length, placed.kv_tokens) == (512, 2048)
    long = ENCODER.model_copy(update={"context_length": 8192})
    placed = place(long, Wanted(), [resources()])
    assert (placed.context_length, placed.kv_tokens) == (8192, 8192)


def test_an_encoder_is_on_one_node():
    nodes = [resources(node_id="a"), resources(node_id="b")]
    assert len(place(ENCODER, Wanted(), nodes).shards) == 1
    with pytest.raises(PlacementImpossible):
        place(ENCODER, Wanted(), [resources(GIB // 100, node_id=name) for name in "ab"])


@pytest.mark.parametrize(
    ("wanted", "param"),
    [
        (Wanted(min_nodes=2), "min_nodes"),
        (Wanted(instance_meta=InstanceMeta.TCP), "min_nodes"),
        (Wanted(sharding=Sharding.TENSOR), "sharding"),
        (Wanted(kv_bits=8), "kv_bits"),
        (Wanted(draft=Draft(name=NGRAM)), "draft"),
    ],
)
def test_what_means_nothing_for_an_encoder(wanted: Wanted, param: str):
    nodes = [resources(node_id="a"), resources(node_id="b")]
    with pytest.raises(PlacementImpossible, match="makes vectors") as error:
        place(ENCODER, wanted, nodes)
    assert error.value.param == param


def test_an_encoder_drafts_no_words():
    draft = Draft(name="e", card=ENCODER)
    with pytest.raises(PlacementImpossible, match="cannot draft") as error:
        place(card(), Wanted(draft=draft), [resources()])
    assert error.value.param == "draft"


def test_heads_that_cannot_be_quantised_are_refused():
    with pytest.raises(PlacementImpossible, match="a head has 16 numbers") as error:
        place(card(head_dim=16), Wanted(kv_bits=8), [resources()])
    assert error.value.param == "kv_bits"
