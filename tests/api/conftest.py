"""The real routes over a stub of the node."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp.test_utils import TestClient, TestServer

from exo.api.app import make_app
from exo.api.context import Context
from exo.api.image_store import ImageStore
from exo.api.meters import Meters
from exo.api.response_archive import ResponseArchive
from exo.api.response_store import ResponseStore
from exo.cluster.tracing import Tracing

from .painter import Studio, studio
from .stub import StubNode, StubSecurity


@dataclass
class Served:
    """The API of a stub."""

    client: TestClient[Any, Any]
    node: StubNode = field(default_factory=StubNode)
    security: StubSecurity = field(default_factory=StubSecurity)

    async def get(self, path: str) -> Any:
        async with self.client.get(path) as response:
            assert response.status == 200, await response.text()
            return await response.json()

    async def post(self, path: str, body: object = None, status: int = 200) -> Any:
        """The answer, which must be of that status; without a body if that is None."""
        async with self.client.post(path, json=body) as response:
            assert response.status == status, await response.text()
            return await response.json()


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    node, security, meters = StubNode(), StubSecurity(), Meters()
    context = Context(
        node=cast("Any", node),
        catalogue=cast("Any", None),
        serving=cast("Any", None),
        security=cast("Any", security),
        images=ImageStore(tmp_path / "images", 2**20),
        responses=ResponseArchive(cast("Any", node), ResponseStore(tmp_path / "responses", 2**20)),
        tracing=Tracing(cast("Any", node.network), meters),
        meters=meters,
    )
    app = make_app(context, host="127.0.0.1", max_body=2**20)
    async with TestClient(TestServer(app, host="127.0.0.1")) as client:
        yield Served(client, node, security)


@pytest.fixture
async def paint(tmp_path: Path) -> AsyncIterator[Studio]:
    """The image API of a node that draws at once."""
    async with studio(tmp_path / "images") as made:
        yield made
