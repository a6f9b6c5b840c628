"""Locking the cluster, and its tokens."""

import pytest

from .conftest import Served
from .stub import TOKEN


async def test_lock_and_rotate(served: Served):
    served.security.missed = ("mac",)
    made = {"name": "exo", "locked": True, "token": TOKEN, "missed": ["mac"]}

    assert await served.post("/cluster/lock") == made
    assert await served.post("/cluster/rotate") == made


async def test_the_token(served: Served):
    assert await served.get("/cluster/token") == {"name": "exo", "locked": False, "token": TOKEN}

    served.security.locked = True

    assert (await served.get("/cluster/token"))["locked"] is True


async def test_a_token_is_kept_by_no_cache(served: Served):
    async with served.client.get("/cluster/token") as response:
        assert response.headers["Cache-Control"] == "no-store"
    async with served.client.post("/cluster/lock") as response:
        assert response.headers["Cache-Control"] == "no-store"


async def test_an_open_cluster_has_no_secret_to_change(served: Served):
    error = (await served.post("/cluster/rotate", status=400))["error"]

    assert error["message"] == "The cluster is open. `exo cluster lock` locks it."


async def test_a_locked_cluster_is_not_locked_again(served: Served):
    served.security.locked = True

    error = (await served.post("/cluster/lock", status=400))["error"]

    assert error["code"] == "invalid_request"


@pytest.mark.parametrize("verb", ["lock", "rotate"])
async def test_a_body_has_nothing_to_say(served: Served, verb: str):
    error = (await served.post(f"/cluster/{verb}", {"secret": "x"}, status=400))["error"]

    assert error["param"] == "secret"
    assert served.security.locked is False


async def test_a_page_of_another_site_gets_no_token(served: Served):
    headers = {"Origin": "http://evil.example"}

    async with served.client.get("/cluster/token", headers=headers) as response:
        assert response.status == 403
