"""Model folders that are damaged or of another kind: a clear error, and the daemon goes on."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from tests.conftest import StartDaemon

from .daemon import Daemon, chat_body, error_of, run_exo, sse_data

pytestmark = pytest.mark.e2e

Damage = Callable[[Path], None]


@pytest.fixture(autouse=True)
def _goes_on(shared: Daemon) -> Iterator[None]:
    yield
    for instance in shared.get("/instance")["data"]:
        if instance["model_id"] != "tiny":
            shared.delete(instance)
    assert shared.chat("tiny", max_tokens=1)["choices"]


@pytest.fixture
def folder(models: Path, tmp_path: Path) -> Path:
    """A copy of the model in three files, to be damaged. Its name is in every message."""
    return Path(shutil.copytree(models / "tiny-indexed", tmp_path / "damaged"))


def without(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def edit_config(**changes: Any) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / "config.json"
        config = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))

    return damage


def write(name: str, content: bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content) and None


def cut(name: str, size: int) -> Damage:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size]) and None


PART = "model-00002-of-00003.safetensors"


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (without("config.json"), "config.json is missing"),
        (without(PART), f"{PART} is missing"),
        (without("tokenizer.json"), "no tokenizer.json"),
        (cut(PART, 100_000), "100000 bytes"),
        (cut(PART, 20), "cut short"),
        (cut(PART, 0), "cut short"),
        (write(PART, b"\xff" * 1000), "cut short or no safetensors file"),
        (write(PART, b"\x08" + b"\0" * 7 + b"{broken}"), "header is damaged"),
        (write("config.json", b"{"), "no valid JSON"),
        (write("config.json", b"[]"), "no JSON object"),
        (write("model.safetensors.index.json", b"nothing"), "no valid JSON"),
        (edit_config(model_type=None), "model_type"),
        (edit_config(num_hidden_layers="three"), "wrong value"),
        (edit_config(num_hidden_layers=0), "wrong value"),
    ],
)
def test_refused_before_loading(shared: Daemon, folder: Path, damage: Damage, told: str) -> None:
    damage(folder)
    response = shared.http.post("/instance", json={"instance": {"model_id": str(folder)}})
    error = error_of(response, 400, "model_invalid")
    assert told in error["message"]
    assert folder.name in error["message"]
    chat = shared.http.post("/v1/chat/completions", json=chat_body(str(folder), "Hello"))
    assert error_of(chat, 400, "model_invalid")["message"] == error["message"]


def replace_weight(name: str, shape: tuple[int, ...] | None) -> Damage:
    """Change one tensor's shape, or drop it."""

    def damage(folder: Path) -> None:
        index = json.loads((folder / "model.safetensors.index.json").read_text())
        file = folder / index["weight_map"][name]
        weights = {key: mx.array(value) for key, value in mx.load(str(file)).items()}
        mx.eval(weights)
        del weights[name]
        if shape:
            weights[name] = mx.zeros(shape, dtype=mx.bfloat16)
        mx.save_safetensors(str(file), weights)

    return damage


BROKEN_LATER = [
    (edit_config(model_type="gramophone"), "gramophone"),
    (replace_weight("model.layers.1.mlp.up_proj.weight", (7, 7)), "up_proj"),
    (replace_weight("model.layers.2.self_attn.q_proj.weight", None), "q_proj"),
    (write("tokenizer.json", b"{}"), "cannot be loaded"),
]


@pytest.mark.parametrize(
    ("damage", "told"), BROKEN_LATER, ids=["architecture", "shape", "missing", "tokenizer"]
)
def test_failed_while_loading(shared: Daemon, folder: Path, damage: Damage, told: str) -> None:
    damage(folder)
    created = shared.post("/instance", {"instance": {"model_id": str(folder)}})
    instance = shared.wait_failed(created["instance_id"])
    assert instance["status"] == "failed"
    assert told in instance["reason"]
    assert str(folder) in instance["reason"]
    chat = shared.http.post("/v1/chat/completions", json=chat_body(str(folder), "Hello"))
    message = error_of(chat, 503, "unavailable")["message"]
    assert told in message
    assert created["instance_id"] in message, "it must say what to delete"
    shared.delete(created)
    assert shared.http.get(f"/instance/{created['instance_id']}").status_code == 404


def test_auto_placed_and_failed_ends_the_request(shared: Daemon, folder: Path) -> None:
    edit_config(model_type="gramophone")(folder)
    body = chat_body(str(folder), "Hello", stream=True)
    response = shared.http.post("/v1/chat/completions", json=body)
    if response.status_code == 200:
        # It took so long that the stream was told of its progress before it failed.
        (data,) = sse_data(response.text.splitlines())
        error = json.loads(data)["error"]
        assert error["code"] == "unavailable"
    else:
        error = error_of(response, 503, "unavailable")
    assert "gramophone" in error["message"]


@pytest.mark.parametrize(
    ("damage", "told"), [(cut(PART, 100_000), "100000 bytes"), BROKEN_LATER[0], BROKEN_LATER[1]]
)
def test_the_command_line_says_it_too(
    shared: Daemon, folder: Path, damage: Damage, told: str
) -> None:
    damage(folder)
    done = run_exo(shared.home, "instance", "create", str(folder))
    assert done.returncode not in {0, 130}
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_mended_folder_works(shared: Daemon, folder: Path, models: Path) -> None:
    edit_config(model_type="gramophone")(folder)
    body = {"instance": {"model_id": str(folder)}}
    failed = shared.post("/instance", body)
    shared.wait_failed(failed["instance_id"])
    shared.delete(failed)
    shutil.copy(models / "tiny-indexed" / "config.json", folder)
    shared.create(folder)
    answer = shared.text(str(folder), temperature=0, max_tokens=8)
    assert answer == shared.text("tiny-indexed", temperature=0, max_tokens=8)


def test_two_folders_of_one_name(shared: Daemon, models: Path, tmp_path: Path) -> None:
    first = shutil.copytree(models / "tiny", tmp_path / "a" / "model")
    second = shutil.copytree(models / "tiny-indexed", tmp_path / "b" / "model")
    shared.create(first)
    shared.create(second)
    wanted = {"temperature": 0, "max_tokens": 16}
    expected = [shared.text(name, **wanted) for name in ("tiny", "tiny-indexed")]
    assert expected[0] != expected[1]
    assert [shared.text(str(path), **wanted) for path in (first, second)] == expected


def test_folder_that_is_gone_after_a_restart(start: StartDaemon, folder: Path) -> None:
    daemon = start()
    created = daemon.create(folder)
    daemon.stop()
    shutil.rmtree(folder)
    daemon = start()
    instance = daemon.wait_failed(created["instance_id"])
    assert str(folder) in instance["reason"]
    assert daemon.chat("tiny", max_tokens=1)["choices"]
