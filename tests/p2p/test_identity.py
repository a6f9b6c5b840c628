from pathlib import Path

import pytest

from exo.errors import HandshakeError, HomeError
from exo.p2p.identity import load_identity, peer_id, peer_id_of, public_key, verify


def test_the_peer_id_is_libp2ps():
    """The Ed25519 example of the libp2p peer id specification."""
    key = bytes.fromhex("1ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e")
    assert peer_id(key) == "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq"


def test_the_key_is_made_once_and_is_private(tmp_path: Path):
    path = tmp_path / "identity.key"
    first = load_identity(path)
    assert load_identity(path).peer_id == first.peer_id
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["identity.key"]


@pytest.mark.parametrize("content", [b"", b"00ff", b"\xff\xfe", b"zz" * 32])
def test_a_damaged_key_is_not_replaced(tmp_path: Path, content: bytes):
    path = tmp_path / "identity.key"
    path.write_bytes(content)
    with pytest.raises(HomeError, match="no Ed25519 key"):
        load_identity(path)
    assert path.read_bytes() == content


def test_a_folder_that_is_missing_is_a_clear_error(tmp_path: Path):
    with pytest.raises(HomeError, match="cannot be written"):
        load_identity(tmp_path / "missing" / "identity.key")


def test_a_peer_id_holds_the_key(tmp_path: Path):
    identity = load_identity(tmp_path / "identity.key")
    key = identity.key.public_key().public_bytes_raw()
    assert public_key(identity.peer_id) == key
    assert peer_id_of(identity.protobuf) == identity.peer_id


@pytest.mark.parametrize(
    "text", ["", "12D3Koo", "0OIl", "é", "1" * 64, "Qm" + "a" * 44, "12D3KooW" * 1000]
)
def test_what_is_no_peer_id(text: str):
    with pytest.raises(HandshakeError, match="no peer id"):
        public_key(text)


@pytest.mark.parametrize("data", [b"", bytes(36), bytes.fromhex("08011220") + bytes(31)])
def test_what_is_no_ed25519_key(data: bytes):
    with pytest.raises(HandshakeError):
        peer_id_of(data)


def test_a_signature_proves_who_made_it(tmp_path: Path):
    one, other = (load_identity(tmp_path / name) for name in ("one", "other"))
    signature = one.sign(b"data")
    assert verify(one.peer_id, signature, b"data")
    assert not verify(one.peer_id, signature, b"date")
    assert not verify(other.peer_id, signature, b"data")
    assert not verify(one.peer_id, signature[:-1], b"data")
