"""A daemon beyond loopback, as its owner and as others meet it."""

import tarfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from .daemon import PATIENCE, Daemon, error_of, run_exo

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def beyond(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """It listens on every address."""
    daemon = Daemon.start(tmp_path_factory.mktemp("keys") / "home", "--host=0.0.0.0")
    yield daemon
    daemon.stop()


def client(daemon: Daemon, key: str | None = None) -> httpx.Client:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.Client(
        base_url=daemon.base_url, headers=headers, timeout=PATIENCE, trust_env=False
    )


def test_the_first_key_is_made_on_the_device_and_opens_the_api(beyond: Daemon) -> None:
    assert "`exo key create NAME`" in beyond.status["access"]["note"]
    with client(beyond) as nobody:
        error_of(nobody.get("/v1/models"), 401, "invalid_api_key")
        assert nobody.get("/healthz").status_code == 200

    made = run_exo(beyond.home, "key", "create", "app", "--quiet")
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    with client(beyond, key) as app:
        assert app.get("/v1/models").status_code == 200
        error_of(app.get("/state"), 403, "forbidden")

    assert run_exo(beyond.home, "key", "revoke", "app").returncode == 0
    with client(beyond, key) as app:
        error_of(app.get("/v1/models"), 401, "invalid_api_key")


def test_what_is_kept_and_dumped_shows_no_secret(beyond: Daemon, tmp_path: Path) -> None:
    key = run_exo(beyond.home, "key", "create", "other", "--quiet").stdout.strip()
    secret = key.rsplit("-", 1)[1].encode()
    with client(beyond, key) as app:
        app.get("/v1/models")
    for path in beyond.home.rglob("*"):
        assert not path.is_file() or secret not in path.read_bytes(), path
    local_key = beyond.home / "state" / "local.key"
    assert local_key.stat().st_mode & 0o077 == 0

    file = tmp_path / "dump.tar.gz"
    done = run_exo(beyond.home, "dump", str(file), api_key=key)
    assert done.returncode == 0, done.stderr
    with tarfile.open(file) as dump:
        texts = {m.name: f.read() for m in dump if (f := dump.extractfile(m)) is not None}
    secrets = [secret, local_key.read_bytes()]
    assert not [name for name, text in texts.items() if any(each in text for each in secrets)]
