"""What `exo dump` removes, and what it leaves."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo.cli.redact import REMOVED, redact, redact_json

TOKEN = "exo1-MFRGGZDFMZTWQ2LKNNWG23TPOBYXE43U"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"joined with {TOKEN}.", f"joined with {REMOVED}"),
        ("Authorization: Bearer abc.def-123", f"Authorization: {REMOVED}"),
        ("got Bearer abcdef123 of", f"got Bearer {REMOVED} of"),
        ("key sk-proj-abcdefghij1234 ends", f"key {REMOVED} ends"),
        ("hf_abcdefghijklmnop", REMOVED),
        ("from http://me:hunter2@proxy:3128/", f"from http://me:{REMOVED}@proxy:3128/"),
        ('api_key = "abc def"', f'api_key = "{REMOVED}"'),
        ("EXO_SECRET='it'", f"EXO_SECRET='{REMOVED}'"),
        ("password: hunter2, port: 1", f"password: {REMOVED}, port: 1"),
        ("a\ntoken=abc\nb", f"a\ntoken={REMOVED}\nb"),
        (
            "-----BEGIN PRIVATE KEY-----\nMC4\n-----END PRIVATE KEY-----\nafter",
            f"{REMOVED}\nafter",
        ),
    ],
)
def test_secrets_are_removed(text: str, left: str) -> None:
    assert redact(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "max_tokens: 5, prompt_tokens=7",
        "2026-11-23 10:00:00,000 INFO exo.daemon: exo 0.1.0 is ready on http://127.0.0.1:52415.",
        "/ip4/10.0.0.2/tcp/52416/p2p/12D3KooWAbcdefghij",
        "the token was wrong",
        "a basic text",
        "exo-demo, exo1, exo 1-2",
    ],
)
def test_the_rest_stays(text: str) -> None:
    assert redact(text) == text


def test_json_keeps_its_shape() -> None:
    value = {
        "token": TOKEN,
        "api_key": "abc",
        "secret": None,
        "secrets_found": 3,
        "max_tokens": 5,
        "list": [f"see {TOKEN}", 1, True, None],
        "deep": {"Authorization": "Basic abc", "detail": 'token="abc", port 1'},
    }

    assert redact_json(value) == {
        "token": REMOVED,
        "api_key": REMOVED,
        "secret": None,
        "secrets_found": 3,
        "max_tokens": 5,
        "list": [f"see {REMOVED}", 1, True, None],
        "deep": {"Authorization": REMOVED, "detail": f'token="{REMOVED}", port 1'},
    }


@given(st.text(max_size=20), st.text(max_size=20))
def test_a_token_is_found_wherever_it_stands(before: str, after: str) -> None:
    text = f"{before} {TOKEN} {after}"

    assert TOKEN not in redact(text)
    assert TOKEN not in json.dumps(redact_json([{"x": text}]))


@given(st.text(max_size=60))
def test_twice_removes_no_more(text: str) -> None:
    assert redact(redact(text)) == redact(text)
