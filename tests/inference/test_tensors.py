"""Models that are split by tensors compute what they compute whole."""

import json

import pytest

from exo.errors import ModelInvalid
from exo.inference.mlx.group import settings
from exo.inference.mlx.together import shard
from exo.inference.ring.gathering import Address
from exo.models.shares import shares

from .architectures import build
from .tensors import all_entries, config_of, judged, known, splitting_modules

# Of each kind that mlx-lm splits in another way.
OF_EACH_KIND = [
    "deepseek_v3",  # latent attention, experts
    "gpt_oss",  # attention sinks, sliding windows, biases
    "minimax",  # norms over all heads
    "qwen3_5",  # linear attention, a head that is split
]


@pytest.mark.timeout(300)
def test_two_ranks_compute_what_the_whole_model_computes():
    for outcome in judged(OF_EACH_KIND):
        assert outcome.wrong is None, outcome
        assert outcome.refused is None
        assert len(outcome.passed) == 3


def test_the_rule_knows_just_the_architectures_that_are_tried():
    """Those of which there is no small configuration are not split: nobody has seen them."""
    split = {name for name, able in splitting_modules().items() if able}
    tried = {all_entries()[name]["module"] for name in known()} - {"prism_hadamard_qwen35"}
    assert split - tried == {"muse_spark", "prism_hadamard_qwen35"}
    assert all(shares({"model_type": name}) is not None for name in tried)
    others = set(splitting_modules()) - tried
    assert [name for name in others if shares({"model_type": name})] == []


class Group:
    """As many ranks as `mx.distributed` would have."""

    def __init__(self, size: int) -> None:
        self._size = size

    def size(self) -> int:
        return self._size


@pytest.mark.parametrize(
    ("name", "size", "match"),
    [
        ("phi3", 2, "of type phi3 cannot be split by tensors"),
        ("llama-2", 4, "2 key-value heads cannot be divided by 4"),
        ("step3p5", 3, "4 attention heads cannot be divided by 3"),
    ],
)
def test_what_cannot_be_split_is_refused_before_anything_is_read(name, size, match):
    entry = all_entries()[name]
    with pytest.raises(ModelInvalid, match=match):
        shard(build(entry), Group(size), config_of(entry))


ADDRESSES = [Address("10.0.0.1", 5000), Address("10.0.0.2", 5001)]


def test_a_ring_of_mlx_is_told_the_address_of_every_rank():
    assert settings("ring", 1, ADDRESSES) == {
        "MLX_RANK": "1",
        "MLX_HOSTFILE": '[["10.0.0.1:5000"], ["10.0.0.2:5001"]]',
    }


def test_macs_are_told_the_devices_of_the_cables_between_them():
    around = [Address(f"10.0.0.{n}", 5000, f"en{n}a", f"en{n}b") for n in range(4)]
    two = settings("jaccl", 1, around[:2])
    assert two == {
        "MLX_RANK": "1",
        "MLX_JACCL_COORDINATOR": "10.0.0.0:5000",
        "MLX_IBV_DEVICES": '[[null, "rdma_en0b"], ["rdma_en1b", null]]',
    }
    four = settings("jaccl", 0, around)
    assert four["MLX_JACCL_RING"] == "1"
    assert json.loads(four["MLX_IBV_DEVICES"])[1] == ["rdma_en1a", None, "rdma_en1b", None]


def test_cuda_devices_are_told_where_the_first_rank_is():
    assert settings("nccl", 1, ADDRESSES) == {
        "MLX_RANK": "1",
        "MLX_WORLD_SIZE": "2",
        "NCCL_HOST_IP": "10.0.0.1",
        "NCCL_PORT": "5000",
    }
