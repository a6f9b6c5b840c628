"""Which instances make room for a model, and how far one is that is waited for."""

from hypothesis import given
from hypothesis import strategies as st

from exo.cluster.events import RunnerChanged
from exo.cluster.placement import Wanted
from exo.cluster.progress import progress_of
from exo.cluster.resources import NodeSample
from exo.cluster.room import room_for
from exo.cluster.state import ClusterState, Instance, RunnerStatus
from tests.cluster.factory import GIB, card, created, device, fold, instance, node, runner

NEW = card("new", storage_size=2 * GIB, dtype="float32")


def sized(name: str, gib: int, node_id: str = "a") -> Instance:
    made = instance(name, node_id)
    [shard] = made.placement.shards
    placement = made.placement.model_copy(
        update={"shards": (shard.model_copy(update={"memory": gib * GIB}),)}
    )
    return made.model_copy(update={"placement": placement, "pinned": False})


def state_of(*instances: Instance) -> ClusterState:
    return ClusterState(
        nodes={name: node(name, name, device=device()) for name in "ab"},
        instances={each.instance_id: each for each in instances},
    )


def room(
    state: ClusterState, idle: dict[str, float], budget: int = 8, b: int = 0
) -> tuple[str, ...] | None:
    """For a model that needs about 3 GiB, on `a`, which may use `budget` GiB, and `b`."""
    samples = {
        "a": NodeSample(budget=budget * GIB, card=NEW),
        "b": NodeSample(budget=b * GIB, card=NEW),
    }
    return room_for(NEW, Wanted(max_nodes=1), state, samples, idle)


def test_where_there_is_room_nothing_goes():
    assert room(state_of(sized("one", 2)), {"one": 100}) == ()


def test_the_one_used_the_longest_ago_goes():
    state = state_of(sized("old", 4), sized("new", 4))
    assert room(state, {"old": 100, "new": 5}) == ("old",)
    assert room(state, {"old": 5, "new": 100}) == ("new",)


def test_several_go_if_one_is_not_enough():
    state = state_of(*(sized(name, 2) for name in ("one", "two", "three", "four")))
    assert set(room(state, {"one": 9, "two": 8, "three": 7, "four": 6}) or ()) == {"one", "two"}


def test_one_that_does_not_help_stays():
    """It is on a node that is too small in any case."""
    state = state_of(sized("there", 1, "b"), sized("here", 7))
    assert room(state, {"there": 100, "here": 5}, b=1) == ("here",)


def test_what_may_not_go_does_not():
    state = state_of(sized("pinned", 4), sized("other", 4))
    assert room(state, {"other": 5}) == ("other",)
    assert room(state, {}) is None


def test_what_never_fits_makes_nobody_go():
    assert room(state_of(sized("one", 1)), {"one": 9}, budget=1) is None


@given(
    st.lists(
        st.tuples(st.integers(1, 4), st.integers(1, 1000)), max_size=6, unique_by=lambda x: x[1]
    )
)
def test_none_goes_that_need_not(made: list[tuple[int, int]]):
    instances = [sized(f"i{n}", gib) for n, (gib, _) in enumerate(made)]
    idle = {f"i{n}": float(seconds) for n, (_, seconds) in enumerate(made)}
    state = state_of(*instances)
    chosen = room(state, idle)
    if chosen is None:
        return
    for spared in chosen:
        rest = {name: idle[name] for name in chosen if name != spared}
        assert room(state, rest) is None, "one of them would have been enough"


def progress(status: RunnerStatus, done: int = 0, total: int = 0) -> str:
    state = fold(created("i"), RunnerChanged(runner=runner("i", status, done=done, total=total)))
    return progress_of(state, state.instances["i"])


def test_progress():
    state = fold(created("i"))
    assert progress_of(state, state.instances["i"]) == "starting"
    assert progress(RunnerStatus.STARTING) == "starting"
    assert progress(RunnerStatus.LOADING, 1, 4) == "loading 25%"
    assert progress(RunnerStatus.WARMING, 4, 4) == "warming"
    assert progress(RunnerStatus.READY, 4, 4) == "ready"
    assert progress(RunnerStatus.FAILED) == "failed"


def test_progress_counts_the_layers_of_all_ranks():
    one = created("i").instance
    [shard] = one.placement.shards
    shards = (
        shard.model_copy(update={"end_layer": 1}),
        shard.model_copy(update={"rank": 1, "start_layer": 1, "end_layer": 4}),
    )
    placement = one.placement.model_copy(update={"shards": shards})
    made = one.model_copy(update={"placement": placement})
    ready = runner("i", RunnerStatus.READY)
    loading = runner("i", RunnerStatus.LOADING, done=1, total=3).model_copy(update={"rank": 1})
    state = ClusterState(
        nodes={"a": node()}, instances={"i": made}, runners={"i/0": ready, "i/1": loading}
    )
    assert progress_of(state, made) == "loading 50%"
