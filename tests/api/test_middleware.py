import pytest

from exo.api.middleware import is_allowed_host


@pytest.mark.parametrize(
    ("host", "bound", "allowed"),
    [
        ("127.0.0.1:52415", "127.0.0.1", True),
        ("localhost:52415", "127.0.0.1", True),
        ("localhost", "127.0.0.1", True),
        ("[::1]:52415", "127.0.0.1", True),
        ("evil.example:52415", "127.0.0.1", False),
        ("127.0.0.1.evil.example", "127.0.0.1", False),
        ("192.168.1.9:52415", "127.0.0.1", False),
        ("192.168.1.9:52415", "0.0.0.0", True),
        ("192.168.1.9:52415", "192.168.1.9", True),
        ("evil.example", "0.0.0.0", False),
        ("my-box:52415", "my-box", True),
        ("", "127.0.0.1", False),
        ("[::1", "127.0.0.1", False),
        ("null", "127.0.0.1", False),
    ],
)
def test_only_addresses_of_this_node_are_its_host(host: str, bound: str, allowed: bool):
    assert is_allowed_host(host, bound) is allowed
