import json
from pathlib import Path

import pytest

from exo.errors import HomeError
from exo.p2p.identity import load_identity
from exo.p2p.machine import Verdict, identify, judge, machine_id, settle_identity

HERE = "a" * 31 + "b"
ELSEWHERE = "c" * 31 + "d"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return tmp_path / "identity.key"


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return tmp_path / "machine.json"


@pytest.mark.parametrize(
    ("recorded", "here", "has_key", "verdict"),
    [
        (None, HERE, False, Verdict.RECORD),
        (None, HERE, True, Verdict.RECORD),
        (HERE, HERE, True, Verdict.KEEP),
        (ELSEWHERE, HERE, True, Verdict.SET_ASIDE),
        (ELSEWHERE, HERE, False, Verdict.RECORD),
        (ELSEWHERE, None, True, Verdict.KEEP),
        (None, None, True, Verdict.KEEP),
    ],
)
def test_the_verdict(recorded: str | None, here: str | None, has_key: bool, verdict: Verdict):
    assert judge(recorded, here, has_key=has_key) is verdict


def test_the_key_stays_the_same_on_one_machine(key: Path, record: Path):
    assert settle_identity(key, record, HERE) is None
    first = load_identity(key).peer_id
    for _ in range(2):
        assert settle_identity(key, record, HERE) is None
        assert load_identity(key).peer_id == first
    assert json.loads(record.read_text()) == {"format": 1, "machine": HERE}
    assert record.stat().st_mode & 0o777 == 0o600


def test_a_copied_folder_gets_a_new_key_and_the_old_one_is_kept(key: Path, record: Path):
    settle_identity(key, record, HERE)
    first, content = load_identity(key).peer_id, key.read_text()
    aside = settle_identity(key, record, ELSEWHERE)
    assert aside
    assert aside.read_text() == content
    second = load_identity(key).peer_id
    assert second != first
    assert settle_identity(key, record, ELSEWHERE) is None
    assert load_identity(key).peer_id == second
    assert settle_identity(key, record, HERE) not in {None, aside}
    assert aside.read_text() == content


def test_a_cut_between_the_two_steps_never_keeps_a_copied_key(
    key: Path, record: Path, monkeypatch: pytest.MonkeyPatch
):
    settle_identity(key, record, HERE)
    first = load_identity(key).peer_id

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("exo.p2p.machine.write_private", fail)
        with pytest.raises(HomeError, match="No space left"):
            settle_identity(key, record, ELSEWHERE)
    assert settle_identity(key, record, ELSEWHERE) is None
    assert load_identity(key).peer_id != first


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"machine": 3}', b"\xff", b"null"])
def test_nothing_is_concluded_from_a_damaged_record(key: Path, record: Path, content: bytes):
    first = load_identity(key).peer_id
    record.write_bytes(content)
    assert settle_identity(key, record, HERE) is None
    assert load_identity(key).peer_id == first
    assert json.loads(record.read_text())["machine"] == HERE


def test_without_a_machine_id_nothing_is_written(key: Path, record: Path):
    assert settle_identity(key, record, None) is None
    assert not record.exists()


def test_a_record_that_cannot_be_written_is_a_clear_error(key: Path, tmp_path: Path):
    with pytest.raises(HomeError, match="cannot be kept"):
        settle_identity(key, tmp_path / "missing" / "machine.json", HERE)


def test_the_id_is_stable_hashed_and_of_this_machine():
    plain = "3d1219c7c4c5404aaa1f6d2a48adfda4"
    found = identify(plain + "\n")
    assert found == identify("3D1219C7-C4C5-404A-AA1F-6D2A48ADFDA4")
    assert found != identify("3d1219c7c4c5404aaa1f6d2a48adfda5")
    assert found
    assert plain not in found
    assert machine_id() == machine_id()


@pytest.mark.parametrize("text", ["", "uninitialized", "0" * 32, "3d12", "g" * 32, "\n"])
def test_what_is_no_id_is_none(text: str):
    assert identify(text) is None
