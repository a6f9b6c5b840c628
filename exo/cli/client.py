"""The daemon's HTTP API, as the commands see it.

The daemon is found through `--api`, else `EXO_API`, else `daemon.json`. It is shown the key in
`EXO_API_KEY`, else, if it is this machine's, the one that it left for its owner. Every failure
leaves here as an `ExoError`: an error object of the API as the class that its code names.
"""

import json
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

from exo.cli import local
from exo.errors import ConfigError, DaemonError, DaemonNotRunning, ExoError, error_class

if TYPE_CHECKING:
    import httpx

START_HINT = "Start it with `exo start`."
LOGS_HINT = "`exo logs` shows what it did last."
TIMEOUT = 30.0
KEY_VARIABLE = "EXO_API_KEY"

JsonObject = dict[str, Any]
# The files of a form: the field, the file's name and what is in it.
Files = list[tuple[str, tuple[str, bytes]]]
OnComment = Callable[[str], None]

_chosen: list[str] = []


def use_api(url: str | None) -> None:
    """Talk to the API at `url` from now on; None: to the daemon of this machine."""
    _chosen[:] = [url] if url else []


def api_is_chosen() -> bool:
    """Whether the user named the API, so that it need not be this machine's."""
    return bool(_chosen)


class Client:
    """A connection to one API. Use as a context manager."""

    def __init__(self, url: str, http: "httpx.Client") -> None:
        self.url = url
        self._http = http

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, **params: str | int | None) -> JsonObject:
        """GET the object at `path`; parameters that are None are left out."""
        return self._object(self._call("GET", path, params=params))

    def get_list(self, path: str, **params: str | int | None) -> list[JsonObject]:
        """GET the array of objects at `path`; parameters that are None are left out."""
        value = self._call("GET", path, params=params)
        if not isinstance(value, list):
            raise self._not_exo()
        return [self._object(item) for item in cast("list[object]", value)]

    def post(
        self,
        path: str,
        body: JsonObject,
        *,
        files: Files | None = None,
        timeout: float | None = TIMEOUT,
    ) -> JsonObject:
        """POST `body`, as a form if there are `files`. A timeout of None waits for as long as the
        daemon computes."""
        return self._object(self._call("POST", path, body=body, files=files, timeout=timeout))

    def delete(self, path: str) -> JsonObject:
        return self._object(self._call("DELETE", path))

    def follow_events(self, since: int | None) -> Generator[JsonObject]:
        """The events from index `since` on; waits for those to come until the daemon stops."""
        params = {"follow": "true"} if since is None else {"follow": "true", "since": str(since)}
        yield from self._stream("GET", "/events", params=params)

    def stream(
        self,
        path: str,
        body: JsonObject,
        files: Files | None = None,
        on_comment: OnComment | None = None,
    ) -> Generator[JsonObject]:
        """POST `body`, as a form if there are `files`, and yield the objects of the answer's event
        stream. Its comments go to `on_comment`."""
        yield from self._stream("POST", path, body=body, files=files, on_comment=on_comment)

    def _call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int | None] | None = None,
        body: JsonObject | None = None,
        files: Files | None = None,
        timeout: float | None = TIMEOUT,
    ) -> object:
        given = {name: value for name, value in (params or {}).items() if value is not None}
        sent = _sent(body, files)
        with self._translated():
            response = self._http.request(method, path, params=given, timeout=timeout, **sent)
        return self._content(response)

    def _stream(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, str] | None = None,
        body: JsonObject | None = None,
        files: Files | None = None,
        on_comment: OnComment | None = None,
    ) -> Iterator[JsonObject]:
        sent = _sent(body, files)
        # No timeout: an event, or a token of a long prompt, may take its time.
        request = self._http.stream(method, path, params=params, timeout=None, **sent)
        with self._translated(), request as response:
            if not response.is_success:
                response.read()
                self._content(response)
            for data in sse_data(response.iter_bytes(), on_comment):
                item = self._object(_parse(data))
                if error := _api_error(item, None):
                    raise error
                yield item

    def _content(self, response: "httpx.Response") -> object:
        value = _parse(response.content)
        if response.is_success and value is not None:
            return value
        if error := _api_error(value, _seconds(response.headers.get("retry-after"))):
            raise error
        raise self._not_exo()

    def _object(self, value: object) -> JsonObject:
        if not isinstance(value, dict):
            raise self._not_exo()
        return cast("JsonObject", value)

    def _not_exo(self) -> DaemonError:
        return DaemonError(
            f"The answer of {self.url} is not one of exo's.",
            hint="Is another program listening there?",
        )

    @contextmanager
    def _translated(self) -> Generator[None]:
        import httpx  # noqa: PLC0415  loaded by `connect` already

        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise not_running(self.url) from error
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise ConfigError(f"'{self.url}' is not the address of an API: {error}.") from error
        except httpx.TimeoutException as error:
            raise DaemonError(
                f"The daemon at {self.url} did not answer within {TIMEOUT:.0f} s.", hint=LOGS_HINT
            ) from error
        except httpx.TransportError as error:
            raise DaemonError(
                f"The daemon at {self.url} closed the connection.", hint=LOGS_HINT
            ) from error


def connect() -> Client:
    """A client of the API that the user chose, or of this machine's daemon.

    Raises:
        DaemonNotRunning: no daemon has recorded its address.
    """
    import httpx  # noqa: PLC0415  a third of a second that `exo --help` does not pay for

    if _chosen:
        url = _chosen[0] if "://" in _chosen[0] else f"http://{_chosen[0]}"
        key = None
    elif daemon := local.read_daemon(local.find_paths()):
        url = daemon.api
        key = local.local_key(local.find_paths())
    else:
        raise not_running()
    url = url.rstrip("/")
    # A proxy of the environment must not see what goes to the daemon. Without TLS there is nothing
    # to verify, and reading the certificate store takes time.
    verify = url.startswith("https://")
    key = os.environ.get(KEY_VARIABLE) or key
    headers = {"Authorization": f"Bearer {key}"} if key else None
    try:
        http = httpx.Client(
            base_url=url, timeout=TIMEOUT, trust_env=False, verify=verify, headers=headers
        )
    except httpx.InvalidURL as error:
        raise ConfigError(f"'{url}' is not the address of an API: {error}.") from error
    return Client(url, http)


def not_running(url: str | None = None) -> DaemonNotRunning:
    """The error for a daemon that is not there."""
    where = f" at {url}" if url else ""
    return DaemonNotRunning(f"exo is not running{where}.", hint=START_HINT)


def model_argument(text: str) -> str:
    """A MODEL argument as the API takes it: a folder by its absolute path, else a name."""
    folder = Path(text).expanduser()
    return str(folder.absolute()) if folder.is_dir() else text


def path_segment(text: str) -> str:
    """`text` as one segment of an API path."""
    return quote(text, safe="")


def sse_data(chunks: Iterable[bytes], on_comment: OnComment | None = None) -> Iterator[str]:
    """The `data` of each server-sent event in a byte stream, up to `[DONE]`. The text of comments
    goes to `on_comment`.

    Lines end at LF only: U+2028 and its like are ordinary characters inside of JSON.
    """
    rest = b""
    lines: list[str] = []
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for raw in whole:
            line = raw.removesuffix(b"\r").decode(errors="replace")
            if line.startswith("data:"):
                lines.append(line[5:].removeprefix(" "))
            elif line.startswith(":") and on_comment:
                on_comment(line[1:].removeprefix(" "))
            elif not line and lines:
                data = "\n".join(lines)
                lines.clear()
                if data == "[DONE]":
                    return
                yield data


def _sent(body: JsonObject | None, files: Files | None) -> dict[str, Any]:
    """A body for httpx: JSON, or a form whose fields are text, or JSON where they are none."""
    if files is None:
        return {"json": body}
    fields = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in (body or {}).items()
    }
    return {"data": fields, "files": files}


def _parse(text: str | bytes) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _api_error(value: object, retry_after: float | None) -> ExoError | None:
    error = cast("JsonObject", value).get("error") if isinstance(value, dict) else None
    if not isinstance(error, dict):
        return None
    fields = cast("JsonObject", error)
    return error_class(str(fields.get("code")))(
        str(fields.get("message")), param=fields.get("param"), retry_after=retry_after
    )


def _seconds(header: str | None) -> float | None:
    return float(header) if header and header.isdecimal() else None
