"""Draining a node, and having it leave."""

import pytest

from exo.errors import MasterUnknown

from .conftest import Served


@pytest.mark.parametrize("name", ["b", "node-b"])
async def test_drain_and_back(served: Served, name: str):
    drained = await served.post(f"/nodes/{name}/drain")
    assert (drained["node_id"], drained["status"]) == ("b", "draining")

    assert (await served.post(f"/nodes/{name}/undrain"))["status"] == "online"


async def test_leave(served: Served):
    assert (await served.post("/nodes/node-b/leave"))["name"] == "node-b"
    assert served.node.left == ["b"]


@pytest.mark.parametrize("verb", ["drain", "undrain", "leave"])
async def test_a_node_that_is_not_there(served: Served, verb: str):
    error = (await served.post(f"/nodes/c/{verb}", status=404))["error"]

    assert (error["code"], error["type"]) == ("node_not_found", "invalid_request_error")
    assert "`exo node list`" in error["message"]


@pytest.mark.parametrize("verb", ["drain", "undrain", "leave"])
async def test_a_body_has_nothing_to_say(served: Served, verb: str):
    await served.post(f"/nodes/b/{verb}", {})
    served.node.left.clear()

    error = (await served.post(f"/nodes/b/{verb}", {"draining": False}, status=400))["error"]

    assert (error["code"], error["param"]) == ("unsupported_parameter", "draining")
    assert served.node.left == []


async def test_without_a_master(served: Served):
    served.node.error = MasterUnknown("The cluster has no master yet.", retry_after=2)

    error = (await served.post("/nodes/b/drain", status=503))["error"]

    assert error["code"] == "master_unknown"
