"""Where image models go."""

from dataclasses import replace

import pytest

from exo.cluster.placement import LayerRange, Wanted, options, place
from exo.cluster.state import Draft, InstanceMeta, Sharding
from exo.errors import ModelNotFound, PlacementImpossible
from exo.models.shipped import shipped_card
from tests.cluster.factory import GIB, device, resources

FLUX = shipped_card("flux.1-schnell")
KLEIN = shipped_card("flux.2-klein-4b")


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
    (option,) = options(FLUX, Wanted(), [resources()])
    assert option.placement is None
    assert "needs" in str(option.reason)


def test_without_weights_there_is_no_placement():
    with pytest.raises(ModelNotFound):
        place(FLUX, Wanted(), [replace(resources(), has_weights=False)])


def test_the_options_are_what_is_placed():
    nodes = [resources(64 * GIB)]
    (option,) = options(KLEIN, Wanted(), nodes)
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
