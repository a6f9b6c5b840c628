import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo.cluster.placement import DEFAULT_CONCURRENCY, DEFAULT_CONTEXT, Wanted, place
from exo.cluster.state import InstanceMeta, Sharding
from exo.errors import PlacementImpossible
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
