import pytest

from exo.cluster.rings import ring_of
from exo.cluster.state import ClusterState, Instance, RingEnd, Runner, RunnerStatus, Shard
from exo.errors import RingError
from tests.cluster.factory import instance as whole
from tests.cluster.factory import node

FACTS = {
    "exo": "1",
    "mlx": "2",
    "mlx-lm": "3",
    "layers": "0-2 2-4",
    "weights": "w",
    "links": "encrypted",
}


def split(*nodes: str) -> Instance:
    made = whole()
    shards = tuple(
        Shard(rank=rank, node_id=name, start_layer=rank, end_layer=rank + 1, memory=1)
        for rank, name in enumerate(nodes)
    )
    return made.model_copy(
        update={"placement": made.placement.model_copy(update={"shards": shards})}
    )


def runner(made: Instance, rank: int, certificate: str = "", **facts: str) -> Runner:
    return Runner(
        runner_id=f"r{rank}",
        instance_id=made.instance_id,
        rank=rank,
        status=RunnerStatus.CONNECTING,
        ring=RingEnd(port=1000 + rank, certificate=certificate or f"c{rank}", facts=FACTS | facts),
    )


def state(made: Instance, *runners: Runner) -> ClusterState:
    return ClusterState(
        nodes={n: node(n).model_copy(update={"name": n}) for n in "abc"},
        instances={made.instance_id: made},
        runners={f"{made.instance_id}/{each.rank}": each for each in runners},
    )


def hosts(node_id: str) -> tuple[str, ...]:
    return (f"host-of-{node_id}",)


def test_every_rank_learns_its_neighbours_and_all_the_same_epoch():
    made = split("a", "b", "c")
    seen = state(made, *(runner(made, rank) for rank in range(3)))
    rings = [ring_of(seen, made, rank, hosts) for rank in range(3)]
    assert all(ring is not None for ring in rings)
    assert len({ring.epoch for ring in rings if ring}) == 1
    around = [(r.previous.rank, r.following.rank, r.following.port) for r in rings if r]
    assert around == [(2, 1, 1001), (0, 2, 1002), (1, 0, 1000)]
    assert rings[0] is not None
    assert rings[0].following.hosts == ["host-of-b"]
    assert rings[0].following.certificate == "c1"


def test_nobody_is_told_before_all_listen():
    made = split("a", "b")
    assert ring_of(state(made, runner(made, 0)), made, 0, hosts) is None
    silent = runner(made, 1).model_copy(update={"ring": None})
    assert ring_of(state(made, runner(made, 0), silent), made, 0, hosts) is None


def test_a_runner_that_is_started_anew_makes_another_epoch():
    made = split("a", "b")
    before = ring_of(state(made, runner(made, 0), runner(made, 1)), made, 0, hosts)
    after = ring_of(state(made, runner(made, 0), runner(made, 1, "new")), made, 0, hosts)
    assert before is not None
    assert after is not None
    assert before.epoch != after.epoch


@pytest.mark.parametrize(
    ("facts", "match"),
    [
        ({"mlx-lm": "9"}, r"a and b have different versions of mlx-lm \(3 and 9\)"),
        ({"weights": "x"}, "different weights"),
        ({"links": "unencrypted"}, r"settings of ring_encryption \(encrypted and unencrypted\)"),
        ({"exo": "0", "weights": "x"}, "different versions of exo"),
    ],
)
def test_ranks_that_do_not_belong_together_are_not_joined(facts: dict[str, str], match: str):
    made = split("a", "b")
    with pytest.raises(RingError, match=match):
        ring_of(state(made, runner(made, 0), runner(made, 1, **facts)), made, 1, hosts)
