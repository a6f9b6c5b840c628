"""Where image models go."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo.cluster.placement import LayerRange, NodeResources, Wanted, options, place
from exo.cluster.placement.image import shared_out
from exo.cluster.state import Draft, InstanceMeta, Sharding
from exo.errors import ModelNotFound, PlacementImpossible
from exo.models.card import ModelCard
from exo.models.shipped import shipped_card
from tests.cluster.factory import GIB, card, device, resources

FLUX = shipped_card("flux.1-schnell")
KLEIN = shipped_card("flux.2-klein-4b")
BASE = shipped_card("flux.2-klein-base-4b")


def test_a_model_goes_to_the_node_that_has_the_memory():
    (shard,) = place(KLEIN, Wanted(), [resources(8 * GIB), resources(64 * GIB, node_id="b")]).shards
    assert (shard.node_id, shard.start_layer, shard.end_layer) == ("b", 0, 25)
    assert KLEIN.storage_size < shard.memory < 2 * KLEIN.storage_size + 12 * GIB


def test_of_those_with_room_the_fastest_draws():
    slow, fast = (
        replace(resources(64 * GIB, node_id=name), device=device(flops=flops))
        for name, flops in (("a", 1e11), ("b", 1e12))
    )
    assert place(KLEIN, Wanted(), [slow, fast]).shards[0].node_id == "b"
    assert place(KLEIN, Wanted(), [slow, replace(fast, shards=20)]).shards[0].node_id == "a"


def test_without_kernels_a_cpu_computes_in_float32_if_that_fits():
    roomy, tight = resources(64 * GIB), resources(28 * GIB)
    assert place(KLEIN, Wanted(), [roomy]).shards[0].cast_float32
    (shard,) = place(KLEIN, Wanted(), [tight]).shards
    assert not shard.cast_float32
    assert shard.memory < 28 * GIB
    assert not place(KLEIN, Wanted(), [resources(64 * GIB, kind="metal")]).shards[0].cast_float32


def test_larger_pictures_need_more_room():
    def memory(size: int) -> int:
        assert KLEIN.image is not None
        traits = KLEIN.image.model_copy(update={"size": size})
        larger = KLEIN.model_copy(update={"image": traits})
        return place(larger, Wanted(), [resources(999 * GIB)]).shards[0].memory

    assert memory(512) < memory(1024) < memory(2048)


def test_too_little_memory_is_said_with_the_numbers():
    with pytest.raises(PlacementImpossible, match=r"needs \d\d\.\d\d GiB on a and 8\.00 GiB"):
        place(FLUX, Wanted(), [resources()])
    option, _ = options(FLUX, Wanted(), [resources()])
    assert option.placement is None
    assert "needs" in str(option.reason)


def test_without_weights_there_is_no_placement():
    with pytest.raises(ModelNotFound):
        place(FLUX, Wanted(), [replace(resources(), has_weights=False)])


def test_the_options_are_what_is_placed():
    nodes = [resources(64 * GIB)]
    option, _ = options(KLEIN, Wanted(), nodes)
    assert option.placement == place(KLEIN, Wanted(), nodes)


@pytest.mark.parametrize(
    ("wanted", "param"),
    [
        (Wanted(context_length=512), "context_length"),
        (Wanted(kv_bits=8), "kv_bits"),
        (Wanted(concurrency=4), "concurrency"),
        (Wanted(draft=Draft(name="ngram")), "draft"),
        (Wanted(sharding=Sharding.TENSOR), "sharding"),
        (Wanted(instance_meta=InstanceMeta.MLX_RING), "instance_meta"),
        (Wanted(min_nodes=3), "min_nodes"),
        (Wanted(instance_meta=InstanceMeta.MLX_JACCL), "instance_meta"),
        (Wanted(layers=(LayerRange(node="a", start_layer=0, end_layer=9),)), "layers"),
    ],
)
def test_what_means_nothing_for_pictures_is_refused(wanted: Wanted, param: str):
    nodes = [resources(64 * GIB), resources(64 * GIB, node_id="b")]
    with pytest.raises(PlacementImpossible) as caught:
        place(KLEIN, wanted, nodes)
    assert caught.value.param == param


def test_a_node_can_be_named():
    nodes = [resources(64 * GIB), resources(65 * GIB, node_id="b")]
    assert place(KLEIN, Wanted(nodes=("a",)), nodes).shards[0].node_id == "a"
    layers = (LayerRange(node="a", start_layer=0, end_layer=25),)
    assert place(KLEIN, Wanted(layers=layers), nodes).shards[0].node_id == "a"


def several(*free: int, flops: tuple[float, ...] = ()) -> list[NodeResources]:
    """Nodes a, b, … with so many GiB free."""
    paces = flops or (1e11,) * len(free)
    return [
        replace(resources(gib * GIB, node_id=name, kind="metal"), device=device("metal", pace))
        for name, gib, pace in zip("abcdef", free, paces, strict=False)
    ]


def test_what_fits_on_no_node_is_split_over_the_fewest():
    nodes = several(30, 26, 22)
    shards = place(FLUX, Wanted(), nodes).shards
    assert [shard.node_id for shard in shards] == ["a", "b"]
    assert (shards[0].start_layer, shards[-1].end_layer) == (0, 57)
    assert shards[0].end_layer == shards[1].start_layer
    assert all(shard.memory <= node.free_memory for shard, node in zip(shards, nodes, strict=False))
    placement = place(FLUX, Wanted(), several(24, 14, 14))
    assert len(placement.shards) == 3
    assert placement.instance_meta is InstanceMeta.TCP


def test_more_nodes_are_used_if_that_is_asked_for():
    nodes = several(64, 64, 64)
    assert len(place(KLEIN, Wanted(), nodes).shards) == 1
    assert len(place(KLEIN, Wanted(min_nodes=3), nodes).shards) == 3
    assert len(place(KLEIN, Wanted(instance_meta=InstanceMeta.TCP), nodes).shards) == 2


def test_blocks_by_hand():
    layers = (
        LayerRange(node="b", start_layer=0, end_layer=5),
        LayerRange(node="a", start_layer=5, end_layer=25),
    )
    shards = place(KLEIN, Wanted(layers=layers), several(64, 64)).shards
    assert [(s.node_id, s.start_layer, s.end_layer) for s in shards] == [("b", 0, 5), ("a", 5, 25)]
    with pytest.raises(PlacementImpossible, match="for blocks 0 to 4"):
        place(KLEIN, Wanted(layers=layers), several(64, 4))


def test_previews_say_why_fewer_nodes_are_not_enough():
    *found, _ = options(FLUX, Wanted(), several(30, 26, 22))
    assert [(each.nodes, each.placement is None) for each in found] == [(1, True), (2, False)]
    assert "needs" in str(found[0].reason)
    (_, two, _) = options(FLUX, Wanted(), several(8, 8))
    assert "does not fit over 2 nodes" in str(two.reason)


GUIDANCE = Wanted(sharding=Sharding.GUIDANCE)


def test_two_nodes_have_all_blocks_for_one_pass_each():
    nodes = several(64, 64, 64, flops=(1e11, 4e11, 2e11))
    placement = place(BASE, GUIDANCE, nodes)
    assert (placement.sharding, placement.instance_meta) == (Sharding.GUIDANCE, InstanceMeta.TCP)
    assert [shard.node_id for shard in placement.shards] == ["b", "c"], "the two fastest"
    assert [(shard.start_layer, shard.end_layer) for shard in placement.shards] == [(0, 25)] * 2
    whole, transformer = (shard.memory for shard in placement.shards)
    assert transformer < whole
    assert whole == place(BASE, Wanted(nodes=("b",)), nodes).shards[0].memory


def test_the_one_with_less_room_has_the_pass_that_needs_less():
    nodes = several(19, 64)
    assert [shard.node_id for shard in place(BASE, GUIDANCE, nodes).shards] == ["b", "a"]
    with pytest.raises(PlacementImpossible, match="0 and 1 of 2 have room"):
        place(BASE, GUIDANCE, several(19, 1))


def test_previews_have_a_row_for_the_passes():
    nodes = several(64, 64)
    row = options(BASE, Wanted(), nodes)[-1]
    assert (row.sharding, row.nodes) == (Sharding.GUIDANCE, 2)
    assert row.placement == place(BASE, GUIDANCE, nodes)
    for model, there, why in (
        (KLEIN, nodes, "in one pass"),
        (BASE, nodes[:1], "the cluster has 1"),
        (BASE, several(64, 1), "does not fit on two nodes"),
    ):
        row = options(model, Wanted(), there)[-1]
        assert row.placement is None
        assert why in str(row.reason)


@pytest.mark.parametrize(
    ("model", "fields", "param"),
    [
        (KLEIN, {}, "sharding"),
        (BASE, {"min_nodes": 3}, "min_nodes"),
        (BASE, {"max_nodes": 1}, "sharding"),
        (BASE, {"instance_meta": InstanceMeta.LOCAL}, "instance_meta"),
        (BASE, {"instance_meta": InstanceMeta.MLX_RING}, "instance_meta"),
        (BASE, {"layers": (LayerRange(node="a", start_layer=0, end_layer=25),)}, "layers"),
        (card(), {}, "sharding"),
    ],
)
def test_what_the_passes_are_not_for_is_refused(
    model: ModelCard, fields: dict[str, object], param: str
):
    with pytest.raises(PlacementImpossible) as caught:
        place(model, GUIDANCE.model_copy(update=fields), several(64, 64, 64))
    assert caught.value.param == param


@given(st.data())
def test_every_block_is_shared_out_once(data: st.DataObject):
    rooms = data.draw(st.lists(st.integers(1, 30), min_size=1, max_size=6))
    paces = data.draw(
        st.lists(st.floats(1, 1e3), min_size=len(rooms), max_size=len(rooms)), label="paces"
    )
    blocks = data.draw(st.integers(len(rooms), sum(rooms)))
    counts = shared_out(blocks, rooms, paces)
    assert sum(counts) == blocks
    assert all(1 <= count <= room for count, room in zip(counts, rooms, strict=True))


def test_a_node_that_is_twice_as_fast_gets_twice_as_much():
    assert shared_out(30, [30, 30], [1.0, 2.0]) == [10, 20]
