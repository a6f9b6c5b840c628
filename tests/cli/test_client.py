"""The client: how the daemon is found, and every failure as an error of exo's tree."""

from pathlib import Path

import httpx
import pytest

from exo.cli.client import Client, model_argument, sse_data
from exo.config import Paths
from exo.errors import ConfigError, DaemonError, ExoError, QueueFull, RunnerDied

from .conftest import Exo, record
from .fake_api import FakeApi


def client(answer: httpx.Response | Exception) -> Client:
    def handle(_: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    http = httpx.Client(base_url="http://exo", transport=httpx.MockTransport(handle))
    return Client("http://exo", http)


def error_body(code: str) -> dict[str, object]:
    return {"error": {"message": "No.", "type": "t", "param": "model", "code": code}}


def test_without_a_daemon_the_hint_starts_one(exo: Exo) -> None:
    result = exo("status")

    assert result.code == 7
    assert result.out == ""
    assert result.err == "Error: exo is not running.\nStart it with `exo start`.\n"


def test_a_stale_record_is_no_daemon(exo: Exo, paths: Paths, unused_url: str) -> None:
    paths.prepare()
    record(paths, unused_url)

    result = exo("status")

    assert result.code == 7
    assert result.err.startswith(f"Error: exo is not running at {unused_url}.\n")


@pytest.fixture
def unused_url() -> str:
    with FakeApi() as gone:
        return gone.url


def test_a_damaged_record_names_the_file(exo: Exo, paths: Paths) -> None:
    paths.prepare()
    paths.daemon.write_text("{")

    result = exo("status")

    assert result.code == 4
    assert str(paths.daemon) in result.err


@pytest.mark.parametrize("scheme", ["http://", ""])
def test_the_option_comes_before_the_record(
    exo: Exo, paths: Paths, api: FakeApi, scheme: str
) -> None:
    record(paths, "http://127.0.0.1:1")
    address = api.url.removeprefix("http://")

    assert exo("--api", f"{scheme}{address}/", "model", "list").code == 0


def test_the_environment_comes_before_the_record(
    exo: Exo, paths: Paths, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(paths, "http://127.0.0.1:1")
    monkeypatch.setenv("EXO_API", api.url)

    assert exo("model", "list").code == 0


@pytest.mark.parametrize("url", ["ftp://x", "http://x:y"])
def test_an_address_that_is_none(exo: Exo, url: str) -> None:
    result = exo("--api", url, "status")

    assert result.code == 2
    assert "is not the address of an API" in result.err


def test_the_proxy_of_the_environment_is_not_asked(
    exo: Exo, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")

    assert exo("model", "list").code == 0


def test_an_error_object_is_the_class_that_its_code_names() -> None:
    answer = httpx.Response(429, json=error_body("queue_full"), headers={"retry-after": "3"})

    with pytest.raises(QueueFull) as caught:
        client(answer).get("/state")

    assert (caught.value.message, caught.value.param) == ("No.", "model")
    assert caught.value.retry_after == 3


def test_an_error_in_a_stream_ends_it() -> None:
    first, second = b'data: {"a": 1}\n\n', b'data: {"error": {"code": "runner_died"}}\n\n'
    stream = client(httpx.Response(200, content=first + second)).stream("/x", {})

    assert next(stream) == {"a": 1}
    with pytest.raises(RunnerDied):
        next(stream)


def test_an_error_instead_of_a_stream() -> None:
    stream = client(httpx.Response(429, json=error_body("queue_full"))).stream("/x", {})

    with pytest.raises(QueueFull):
        next(stream)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (httpx.Response(200, text="<html>"), DaemonError),
        (httpx.Response(200, json=[]), DaemonError),
        (httpx.Response(404, text="Not Found"), DaemonError),
        (httpx.Response(302, headers={"location": "/x"}), DaemonError),
        (httpx.ReadTimeout("slow"), DaemonError),
        (httpx.RemoteProtocolError("gone"), DaemonError),
        (httpx.UnsupportedProtocol("what"), ConfigError),
    ],
)
def test_what_is_not_exo_is_said_so(
    answer: httpx.Response | Exception, expected: type[ExoError]
) -> None:
    with pytest.raises(expected):
        client(answer).get("/state")


def test_a_list_must_be_one() -> None:
    with pytest.raises(DaemonError):
        client(httpx.Response(200, json={})).get_list("/events")


def test_event_streams_are_cut_at_line_feeds_only() -> None:
    stream = (
        b": keep-alive\n\n"
        b"id: 1\r\ndata: one\r\n\r\n"
        b"data:two\ndata: lines\n\n"
        b"data: a\xe2\x80\xa8b\n\n"
        b"data: [DONE]\n\ndata: never\n\n"
    )

    # Byte by byte: characters and lines may arrive in any pieces.
    assert list(sse_data(bytes([byte]) for byte in stream)) == ["one", "two\nlines", "a\u2028b"]


def test_a_model_is_a_folder_if_there_is_one(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "file").touch()

    assert model_argument("mine") == str(tmp_path / "mine")
    assert model_argument("file") == "file"
    assert model_argument("exo-demo") == "exo-demo"
