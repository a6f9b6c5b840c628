"""`exo cluster`: who is in it, and who may join."""

from .conftest import Exo
from .fake_api import NODE_ID, OPEN, OTHER_ID, TOKEN, FakeApi, node


def test_status(exo: Exo, api: FakeApi) -> None:
    api.nodes.append(node(OTHER_ID, "mac"))
    api.refused = {"version": 1, "other_cluster": 3}
    api.open_to_network = True

    assert exo("cluster", "status").out == (
        "Cluster  exo, 2 nodes, open\n"
        "Master   box\n"
        "Term     3\n"
        "Refused  4 (other cluster 3, version 1)\n"
        "\n"
        "MEMBER  STATUS  VERSION  SINCE                    ADDRESSES                ID\n"
        "box     alive   0.1.0    2026-11-23 10:00:00 UTC  /ip4/10.0.0.2/tcp/52416  FakeNode\n"
        "mac     alive   0.1.0    2026-11-23 10:00:00 UTC  /ip4/10.0.0.2/tcp/52416  therNode\n"
        "\n"
        f"{OPEN}\n"
    )
    assert exo("cluster", "status", "--json").json() == api.cluster()


def test_a_locked_cluster(exo: Exo, api: FakeApi) -> None:
    api.locked = api.open_to_network = True

    out = exo("cluster", "status").out

    assert out.startswith("Cluster  exo, 1 node, locked\nMaster   box\nTerm     3\nRefused  0\n")
    assert OPEN not in out


def test_lock(exo: Exo, api: FakeApi) -> None:
    made = {"name": "exo", "locked": True, "token": TOKEN, "missed": []}

    assert exo("cluster", "lock").out == (
        f"The cluster exo is locked. A device joins it with:\n\nexo start --join {TOKEN}\n"
    )
    assert exo("cluster", "lock", "--json").json() == made
    assert exo("cluster", "lock", "--quiet").out == f"{TOKEN}\n"
    assert api.calls == [("POST", "/cluster/lock")] * 3


def test_rotate_names_those_who_missed_it(exo: Exo, api: FakeApi) -> None:
    api.missed = ["mac", "pi"]

    result = exo("cluster", "rotate")

    assert "The cluster exo has a new secret." in result.out
    assert result.err == (
        "mac did not get the secret: let it join with the token.\n"
        "pi did not get the secret: let it join with the token.\n"
    )
    assert exo("cluster", "rotate", "--json").json()["missed"] == ["mac", "pi"]
    assert exo("cluster", "rotate", "-q").out == f"{TOKEN}\n"


def test_a_refusal_is_the_daemons(exo: Exo, api: FakeApi) -> None:
    message = "The cluster is open. `exo cluster lock` locks it."
    api.failure = (400, {"error": {"message": message, "code": "invalid_request"}})

    result = exo("cluster", "rotate")

    assert (result.code, result.out, result.err) == (1, "", f"Error: {message}\n")


def test_the_token_stands_alone_on_stdout(exo: Exo, api: FakeApi) -> None:
    opened = exo("cluster", "token")
    api.locked = True
    locked = exo("cluster", "token")

    assert opened.out == locked.out == exo("cluster", "token", "--quiet").out == f"{TOKEN}\n"
    assert opened.err == "The cluster is open: the token only says where it is.\n"
    assert locked.err == "Whoever has this token can join the cluster: keep it secret.\n"
    assert exo("cluster", "token", "--json").json() == api.token()


def test_an_unknown_master_is_its_id(exo: Exo, api: FakeApi) -> None:
    api.nodes[0]["node_id"] = OTHER_ID

    assert f"Master   {NODE_ID}\n" in exo("cluster", "status").out
