"""`exo image`: what is asked, what is written where, and what a terminal shows."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Exo
from .fake_api import MODEL, FakeApi, instance
from .fake_painter import picture

PROMPT = "A cat, sleeping."


@pytest.fixture
def ready(api: FakeApi) -> FakeApi:
    """An instance of an image model."""
    api.models = [{**MODEL, "tasks": ["image"]}, {**MODEL, "id": "says", "aliases": []}]
    api.instances["i1"] = instance("i1")
    return api


def test_a_picture_is_written_under_the_prompt_s_name(exo: Exo, ready: FakeApi, tmp_path: Path):
    result = exo("image", "exo-demo", PROMPT)

    assert result.code == 0, result.err
    assert (tmp_path / "a-cat-sleeping.png").read_bytes() == picture(0, 2)
    assert result.out == "a-cat-sleeping.png  32x16, seed 7\n"
    assert result.err == "", "no bar and no picture where there is no terminal"
    [(path, body)] = ready.painter.requests
    assert path == "/v1/images/generations"
    assert body == {
        "model": "exo-demo", "prompt": PROMPT, "n": 1, "output_format": "png",
        "stream": True, "partial_images": 0,
    }  # fmt: skip


def test_options_are_fields_of_the_request(exo: Exo, ready: FakeApi):
    words = ["--size", "64x32", "--quality", "low", "--steps", "3", "--seed", "5",
             "--guidance", "2.5", "--negative", "dogs", "--format", "webp",
             "--patches", "4", "--sync-steps", "2",
             "--compression", "80", "-n", "2", "--no-stream"]  # fmt: skip

    assert exo("image", "exo-demo", PROMPT, *words).code == 0

    assert ready.painter.requests[0][1] == {
        "model": "exo-demo", "prompt": PROMPT, "n": 2, "output_format": "webp",
        "output_compression": 80, "size": "64x32", "quality": "low",
        "advanced_params": {"seed": 5, "num_inference_steps": 3, "guidance": 2.5,
                            "negative_prompt": "dogs", "patches": 4, "num_sync_steps": 2},
    }  # fmt: skip


def test_json_and_quiet(exo: Exo, ready: FakeApi, tmp_path: Path):
    assert exo("image", "exo-demo", PROMPT, "-n", "2", "--json").json() == {
        "model": "exo-demo",
        "format": "png",
        "images": [
            {"path": str(tmp_path / f"a-cat-sleeping-{i + 1}.png"), "seed": 7 + i, "size": "32x16"}
            for i in range(2)
        ],
    }
    assert exo("image", "exo-demo", "dog", "-q").out == "dog.png\n"


def test_nothing_is_overwritten(exo: Exo, ready: FakeApi, tmp_path: Path):
    there = tmp_path / "a-cat-sleeping.png"
    there.write_text("mine")

    assert exo("image", "exo-demo", PROMPT, "-q").out == "a-cat-sleeping-2.png\n"
    assert exo("image", "exo-demo", PROMPT, "-q").out == "a-cat-sleeping-3.png\n"
    asked = len(ready.painter.requests)
    result = exo("image", "exo-demo", PROMPT, "-o", str(there))
    assert result.code != 0
    assert "--force" in result.err
    assert len(ready.painter.requests) == asked, "it is known before anything is drawn"
    assert there.read_text() == "mine"
    assert exo("image", "exo-demo", PROMPT, "-o", str(there), "--force").code == 0
    assert there.read_bytes() == picture(0, 2)


@pytest.mark.parametrize(
    ("out", "form"), [("x.png", "png"), ("x.jpg", "jpeg"), ("x.JPEG", "jpeg"), ("x.webp", "webp"),
                      ("x", "png"), ("x.bin", "png")],
)  # fmt: skip
def test_the_file_s_name_says_its_format(
    exo: Exo, ready: FakeApi, tmp_path: Path, out: str, form: str
):
    assert exo("image", "exo-demo", PROMPT, "-o", out).code == 0
    assert ready.painter.requests[0][1]["output_format"] == form
    assert (tmp_path / out).read_bytes() == picture(0, 2, form)


def test_several_pictures_and_one_name(exo: Exo, ready: FakeApi, tmp_path: Path):
    (tmp_path / "into").mkdir()
    assert exo("image", "exo-demo", PROMPT, "-o", "x.png", "-n", "2").code == 0
    assert (tmp_path / "x-2.png").read_bytes() == picture(1, 2)
    assert exo("image", "exo-demo", PROMPT, "-o", "into").code == 0
    assert (tmp_path / "into" / "a-cat-sleeping.png").exists()


def test_what_cannot_be_written_is_known_first(exo: Exo, ready: FakeApi):
    for words in (
        ["-o", "nowhere/x.png"],
        ["-o", "x.png", "--format", "webp"],
        ["-o", "-", "-n", "2"],
        ["-o", "-", "--json"],
        ["--mask", "m.png"],
        ["--edit", "nothing.png"],
    ):
        assert exo("image", "exo-demo", PROMPT, *words).code == 1, words
    assert ready.painter.requests == []


def test_stdout_takes_the_bytes(exo: Exo, ready: FakeApi):
    done = subprocess.run(
        [sys.executable, "-P", "-m", "exo", "image", "exo-demo", PROMPT, "-o", "-"],
        capture_output=True,
        check=True,
    )
    assert done.stdout == picture(0, 2)
    assert done.stderr == b""


def test_edits(exo: Exo, ready: FakeApi, tmp_path: Path):
    for name in ("a.png", "b.jpg", "mask.png"):
        (tmp_path / name).write_bytes(name.encode())
    words = ["--edit", "a.png", "--edit", "b.jpg", "--mask", "mask.png", "--fidelity", "high"]

    assert exo("image", "exo-demo", "blue", *words, "--seed", "3").code == 0

    assert ready.painter.uploads == [
        ("image[]", b"a.png"), ("image[]", b"b.jpg"), ("mask", b"mask.png"),
    ]  # fmt: skip
    [(path, body)] = ready.painter.requests
    assert path == "/v1/images/edits"
    assert (body["prompt"], body["input_fidelity"]) == ("blue", "high")
    assert (body["advanced_params"], body["n"]) == ({"seed": 3}, 1)
    assert exo("image", "exo-demo", "blue", "--no-stream", *words).code == 0


def test_a_model_for_text_is_not_loaded(exo: Exo, ready: FakeApi):
    result = exo("image", "says", PROMPT)
    assert result.code == 1
    assert "makes no images" in result.err
    assert ready.posted == []


def test_an_instance_is_made_if_there_is_none(exo: Exo, ready: FakeApi):
    ready.instances.clear()
    assert exo("image", "exo-demo", PROMPT).code == 0
    assert len(ready.posted) == 1


def test_a_piped_prompt(exo: Exo, ready: FakeApi):
    assert exo("image", "exo-demo", stdin="a dog\n").out.startswith("a-dog.png")
    assert exo("image", "exo-demo", tty=True).code == 1


def test_failures(exo: Exo, ready: FakeApi, tmp_path: Path):
    error = {"message": "It broke.", "type": "server_error", "param": None, "code": "engine_error"}
    ready.painter.stream_error = {"error": error}
    result = exo("image", "exo-demo", PROMPT)
    assert (result.code, result.err) == (1, "Error: It broke.\n")
    ready.painter.stream_error = None
    ready.painter.ends_early = True
    result = exo("image", "exo-demo", PROMPT)
    assert result.code == 6
    assert "before they were complete" in result.err
    assert not list(tmp_path.glob("*.png"))


# Terminals.


def in_terminal(*words: str, **env: str) -> str:
    """All that a terminal gets to see."""
    control, terminal = pty.openpty()
    clean = {k: v for k, v in os.environ.items() if k not in {"NO_COLOR", "TERM", "TMUX"}}
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "exo", "image", "exo-demo", PROMPT, *words],
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=terminal,
        env={**clean, "COLUMNS": "80", "LINES": "24", "TERM": "xterm-256color", **env},
    ) as child:
        os.close(terminal)
        seen = b""
        while True:
            try:
                piece = os.read(control, 65536)
            except OSError:
                break
            if not piece:
                break
            seen += piece
    os.close(control)
    assert child.returncode == 0, seen.decode()
    return seen.decode()


def test_a_terminal_shows_the_steps_and_the_pictures(ready: FakeApi):
    seen = in_terminal(COLORTERM="truecolor")
    assert "step 2/2" in seen
    assert seen.count("▀") > 100
    assert "48;2;0;20;200" in seen, "the picture's own colour"
    assert ready.painter.requests[0][1]["partial_images"] == 3


@pytest.mark.parametrize(
    ("words", "env", "sign"),
    [
        ((), {"TERM": "xterm-kitty"}, "\x1b_Ga=T,f=100"),
        ((), {"TERM_PROGRAM": "iTerm.app"}, "\x1b]1337;File=inline=1"),
        ((), {"TERM": "foot"}, "\x1bPq"),
        (("--show", "sixel"), {}, "\x1bPq"),
        ((), {"EXO_SHOW": "kitty"}, "\x1b_Ga=T"),
    ],
)
def test_pictures_in_the_terminal_s_own_way(
    ready: FakeApi, words: tuple[str, ...], env: dict[str, str], sign: str
):
    seen = in_terminal(*words, **env)
    assert seen.count(sign) == 3, "two previews and the picture"
    assert "▀" not in seen


def test_of_pictures_that_are_drawn_at_once_one_is_seen_taking_form(ready: FakeApi):
    ready.painter.together = True
    seen = in_terminal("-n", "2", TERM="xterm-kitty")
    # Two previews of the first and itself; then of the other the preview that is left, and itself.
    assert seen.count("\x1b_Ga=T,f=100") == 3 + 2


def test_a_terminal_that_shall_show_none(ready: FakeApi):
    seen = in_terminal("--show", "none")
    assert "▀" not in seen
    assert ready.painter.requests[0][1]["partial_images"] == 0
