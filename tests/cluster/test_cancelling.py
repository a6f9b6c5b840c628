"""A request is ended on the node where it was asked for, whichever node is told."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from exo.cluster.cancelling import Cancelling
from tests.cluster.lab import Lab


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    made = Lab(tmp_path)
    yield made
    await made.close()


async def test_any_node_ends_a_request_of_another(lab: Lab):
    one, other = await lab.start("one", "other")
    ended: list[tuple[str, str | None]] = []

    def there(name: str, lane: str | None) -> bool:
        ended.append((name, lane))
        return name == "known"

    here = Cancelling(one.node, lambda _name, _lane: False)
    here.open()
    Cancelling(other.node, there).open()

    assert await here.cancel("known", "key") is True
    assert await here.cancel("unknown", None) is False
    assert ended == [("known", "key"), ("unknown", None)]

    await other.kill()
    assert await here.cancel("known", None) is False
