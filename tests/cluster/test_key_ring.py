"""Keys in a cluster: made on one node, good on all."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from exo.cluster.key_ring import KeyRing
from exo.cluster.state import Scope
from tests.cluster.lab import Lab


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    made = Lab(tmp_path)
    yield made
    await made.close()


async def test_a_key_is_good_on_every_node_until_it_is_revoked_on_one(lab: Lab):
    one, other = await lab.start("one", "other")
    here, there = KeyRing(one.node), KeyRing(other.node)

    made = await here.create("app", Scope.INFERENCE, ["m"], 60)
    await other.node.wait_for(lambda state: made.key.key_id in state.keys)

    found = there.find(made.text)
    assert found
    assert (found.name, found.models, found.rate) == ("app", ("m",), 60)
    # Either of them hears of its use, whichever is the master.
    for member in (one, other):
        await member.node.wait_for(lambda state: bool(state.keys[made.key.key_id].last_used))

    await there.revoke("app")
    await one.node.wait_for(lambda state: not state.keys)
    assert here.find(made.text) is None
    assert there.find(made.text) is None


async def test_a_key_survives_its_node(lab: Lab):
    [member] = await lab.start("one")
    made = await KeyRing(member.node).create("app", Scope.ADMIN, [], None)

    await member.kill()
    await member.start()
    await lab.settled(member)

    assert KeyRing(member.node).find(made.text)
