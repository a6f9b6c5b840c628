import pytest
from hypothesis import given
from hypothesis import strategies as st

from exo.errors import RequestError
from exo.p2p.tokens import Token, decode_token, encode_token
from tests.p2p.people import ANN

TOKEN = Token("exo", b"s" * 32, (f"/ip4/10.0.0.2/tcp/52416/p2p/{ANN.peer_id}",))


@pytest.mark.parametrize("token", [TOKEN, Token("höhle", None), Token("exo", b"x", ("/memory/1",))])
def test_a_token_says_all_that_a_new_device_needs(token: Token):
    text = encode_token(token)
    assert text.startswith("exo1-")
    assert decode_token(text) == token
    assert decode_token(f"  {text.upper()}\n") == token


def test_a_token_has_not_changed():
    """Tokens are written down: those of older versions must stay good."""
    assert encode_token(Token("exo", b"secret", ("/ip4/10.0.0.2/tcp/1",))) == (
        "exo1-sorwk6dpyqdhgzldojsxjentf5uxanbpgeyc4mbogaxdel3umnyc6mlkxb3uy"
    )


def test_the_secret_is_not_in_the_log():
    assert "secret" not in repr(Token("exo", b"secret"))


@given(st.data())
def test_one_wrong_letter_is_found(data: st.DataObject):
    text = encode_token(TOKEN)
    place = data.draw(st.integers(len("exo1-"), len(text) - 1))
    letter = data.draw(st.sampled_from("abcdefghijklmnopqrstuvwxyz234567"))
    typed = text[:place] + letter + text[place + 1 :]
    try:
        read = decode_token(typed)
    except RequestError as error:
        assert error.hint  # noqa: PT017  either outcome is right
    else:
        # The last letter has bits that mean nothing.
        assert read == TOKEN
        assert typed == text or place == len(text) - 1


@pytest.mark.parametrize("text", ["", "exo1-", "exo1-a", "exo1-0189", "hello", "exo-aaa", "exo1-é"])
def test_what_is_no_token(text: str):
    with pytest.raises(RequestError, match="mistyped"):
        decode_token(text)


def test_a_token_that_is_cut_off():
    with pytest.raises(RequestError, match="cut off"):
        decode_token(encode_token(TOKEN)[:-5])


def test_a_token_of_a_later_version():
    with pytest.raises(RequestError, match="another version") as caught:
        decode_token("exo2-abcdef")
    assert "Upgrade" in str(caught.value)


@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz234567-", max_size=80))
def test_any_text_is_a_token_or_a_clear_error(text: str):
    with pytest.raises(RequestError):
        decode_token("exo1-" + text)
