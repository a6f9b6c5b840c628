"""Keys of the API: what they are, and what the cluster's state knows of them."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from exo.cluster.commands import CreateKey, RevokeKey, decide, is_done
from exo.cluster.events import KeyCreated, KeyRevoked, KeysUsed
from exo.cluster.keys import (
    MOST_KEYS,
    NewKey,
    find_key,
    is_key,
    is_worth_telling,
    make_key,
)
from exo.cluster.log import EventLog
from exo.cluster.merge import merge
from exo.cluster.state import ApiKey, ClusterState, Scope
from exo.errors import KeyNotFound, RequestError
from tests.cluster.factory import entry, fold

NOW = "2026-01-01T00:00:00+00:00"


def made(name: str = "laptop", scope: Scope = Scope.INFERENCE) -> NewKey:
    return make_key(name, scope, NOW)


def with_key(key: ApiKey) -> ClusterState:
    return fold(KeyCreated(key=key))


def create(key: ApiKey, command_id: str = "c") -> CreateKey:
    return CreateKey(command_id=command_id, key=key)


def test_a_key_is_found_by_its_text():
    one, other = made("one"), made("other")
    state = fold(KeyCreated(key=one.key), KeyCreated(key=other.key))

    assert is_key(one.text)
    assert find_key(state.keys, one.text) == one.key
    assert find_key(state.keys, other.text) == other.key


def test_no_other_text_is_a_key():
    new = made()
    keys = {new.key.key_id: new.key}
    secret = new.text.rsplit("-", 1)[1]

    for text in ["", "sk-exo-", new.text[:-1], new.text + "a", new.text.upper(), secret]:
        assert find_key(keys, text) is None, text
    # What the state has of it does not open anything.
    assert find_key(keys, f"sk-exo-{new.key.key_id}-{new.key.hashed_secret}") is None
    assert find_key(keys, f"sk-exo-{new.key.key_id}-") is None
    assert find_key(keys, f"sk-exo-nobody-{secret}") is None
    assert find_key(keys, f"sk-exo-{new.key.key_id}-ä") is None


def test_the_secret_is_in_nothing_that_is_kept():
    new = made()
    secret = new.text.rsplit("-", 1)[1]

    assert len(secret) >= 50
    assert secret not in with_key(new.key).model_dump_json()


def test_the_log_tells_of_a_key_and_not_what_proves_it():
    new = made()
    state = ClusterState()
    told = entry(state, KeyCreated(key=new.key)).to_api()
    merged = merge(state, with_key(new.key))

    assert merged
    assert told["key"]["name"] == "laptop"
    assert new.key.hashed_secret not in json.dumps(told)
    assert new.key.hashed_secret not in json.dumps(entry(state, merged).to_api())


def test_an_admin_key_cannot_be_for_some_models():
    with pytest.raises(RequestError) as refused:
        make_key("root", Scope.ADMIN, NOW, models=["tiny"])
    assert refused.value.param == "models"


def test_a_key_without_a_name_is_called_by_its_id():
    key = made("").key
    assert key.name == key.key_id


def test_a_name_is_of_one_key():
    state = with_key(made().key)
    with pytest.raises(RequestError, match="called 'laptop'"):
        decide(state, create(made().key), (), NOW)


def test_there_is_a_most_of_keys():
    keys = {str(n): made(f"key {n}").key for n in range(MOST_KEYS)}
    with pytest.raises(RequestError, match=str(MOST_KEYS)):
        decide(ClusterState(keys=keys), create(made("new").key), (), NOW)


def test_a_key_is_made_once_and_revoked_once():
    key = made().key
    command = create(key)
    [event] = decide(ClusterState(), command, (), NOW)
    state = fold(event)
    assert is_done(state, command)
    assert decide(state, command, (), NOW) == []

    revoke = RevokeKey(command_id="r", key_id=key.key_id)
    assert not is_done(state, revoke)
    [event] = decide(state, revoke, (), NOW)
    state = fold(event, state=state)
    assert is_done(state, revoke)
    assert decide(state, revoke, (), NOW) == []
    assert decide(state, command, (), NOW) == [], "what is revoked does not come back"
    assert is_done(state, command)


def test_who_is_not_known_cannot_be_revoked():
    with pytest.raises(KeyNotFound):
        decide(ClusterState(), RevokeKey(command_id="r", key_id="nobody"), (), NOW)


def test_a_key_that_was_revoked_on_one_side_is_revoked():
    key = made().key
    before = with_key(key)
    after = fold(KeyRevoked(key_id=key.key_id), state=before)

    for state, offered in [(after, before), (before, after)]:
        event = merge(state, offered)
        healed = fold(event, state=state) if event else state
        assert healed.keys == {}
        assert healed.revoked == (key.key_id,)
        assert merge(healed, offered) is None


def test_keys_of_both_sides_are_good():
    one, other = made("one").key, made("other").key
    event = merge(with_key(one), with_key(other))

    assert event
    state = fold(event, state=with_key(one))
    assert set(state.keys) == {one.key_id, other.key_id}
    assert merge(state, with_key(other)) is None


def test_the_use_of_a_key_is_told_once_an_hour():
    key = made().key
    now = datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert is_worth_telling(key, now)

    used = fold(KeysUsed(used={key.key_id: now.isoformat()}), state=with_key(key))
    key = used.keys[key.key_id]

    assert key.last_used == now.isoformat()
    assert not is_worth_telling(key, now + timedelta(minutes=59))
    assert is_worth_telling(key, now + timedelta(minutes=60))


def test_the_use_of_a_key_that_is_gone_is_nothing():
    assert fold(KeysUsed(used={"gone": NOW})).keys == {}


def test_keys_survive_a_restart(tmp_path: Path):
    new = made()
    log = EventLog(tmp_path / "state.db")
    log.append([entry(log.state, KeyCreated(key=new.key))], durable=True)
    log.close()

    assert find_key(EventLog(tmp_path / "state.db").state.keys, new.text) == new.key
