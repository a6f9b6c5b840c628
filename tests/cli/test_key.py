"""`exo key`, and which key the command line itself shows."""

import pytest

from exo.config import Paths

from .conftest import Exo
from .fake_api import KEY, SINCE, FakeApi

PLAIN = {"name": "laptop", "scope": "inference", "models": [], "rate": None}


def test_create_shows_the_key_once(exo: Exo, api: FakeApi) -> None:
    done = exo("key", "create", "laptop")

    assert done.out == f"{KEY}\n"
    assert "only time" in done.err
    assert api.posted == [PLAIN]


def test_create_with_limits(exo: Exo, api: FakeApi) -> None:
    words = ["--scope", "inference", "--model", "a", "--model", "b", "--rate", "60", "--json"]

    made = exo("key", "create", "app", *words).json()

    assert made["key"] == KEY
    assert api.posted == [{**PLAIN, "name": "app", "models": ["a", "b"], "rate": 60}]


def test_list(exo: Exo, api: FakeApi) -> None:
    assert exo("key", "list").out == "There are no keys. `exo key create NAME` makes one.\n"

    known = {"key_id": "abcd2345", "created_at": SINCE, "last_used": None}
    api.keys = [{**PLAIN, **known}, {**PLAIN, **known, "models": ["a", "b"], "rate": 60}]
    api.keys[1]["last_used"] = SINCE

    time = ["2026-11-23", "10:00:00", "UTC"]
    assert [line.split() for line in exo("key", "list").out.splitlines()[1:]] == [
        ["laptop", "inference", "all", "any", *time, "never", "abcd2345"],
        ["laptop", "inference", "a,", "b", "60/min", *time, *time, "abcd2345"],
    ]
    assert exo("key", "list", "--quiet").out == "abcd2345\nabcd2345\n"


def test_revoke(exo: Exo, api: FakeApi) -> None:
    exo("key", "create", "my laptop")

    assert exo("key", "revoke", "my laptop").out == "'my laptop' is revoked.\n"
    assert api.keys == []
    assert api.calls[-1] == ("DELETE", "/keys/my%20laptop")


def test_this_devices_daemon_is_shown_the_key_that_it_left(
    exo: Exo, api: FakeApi, paths: Paths
) -> None:
    paths.local_key.write_text("local-key")

    exo("key", "list")

    assert api.shown_keys == ["Bearer local-key"]


def test_another_daemon_is_not(exo: Exo, api: FakeApi, paths: Paths) -> None:
    paths.local_key.write_text("local-key")

    exo("--api", api.url, "key", "list")

    assert api.shown_keys == [None]


def test_a_key_of_the_environment_is_shown_to_any(
    exo: Exo, api: FakeApi, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths.local_key.write_text("local-key")
    monkeypatch.setenv("EXO_API_KEY", KEY)

    exo("key", "list")
    exo("--api", api.url, "key", "list")

    assert api.shown_keys == [f"Bearer {KEY}"] * 2


def test_the_status_says_what_to_know_of_keys(exo: Exo, api: FakeApi) -> None:
    api.note = "The API takes a key, and there is none yet."

    assert api.note in exo("status").out
