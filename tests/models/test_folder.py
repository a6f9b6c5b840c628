import json
import struct
from pathlib import Path

import mlx.core as mx
import pytest

from exo.errors import ModelInvalid
from exo.models.folder import read_card
from tests.models_maker import VOCABULARY, make_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_model(tmp_path / "tiny")


def edit_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= changes
    config = {name: value for name, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config))


def test_the_card_says_what_the_files_say(folder: Path):
    card = read_card(folder)
    assert (card.model_id, card.n_layers, card.vocab_size) == ("tiny", 3, VOCABULARY)
    assert (card.context_length, card.dtype, card.quantization) == (2048, "float16", None)
    assert card.storage_size == sum(
        array.nbytes for array in mx.load(str(folder / "model.safetensors")).values()
    )
    assert card.packed_size == 0


def test_several_files_and_quantised_ones_are_summed(tmp_path: Path):
    card = read_card(make_model(tmp_path / "q", bits=4, files=3, dtype=mx.bfloat16))
    assert str(card.quantization) == "4bit"
    assert 0 < card.packed_size < card.storage_size


def test_the_makers_sampling_defaults_are_read(folder: Path):
    (folder / "generation_config.json").write_text('{"temperature": 0.6, "top_k": 20, "x": 1}')
    assert read_card(folder).sampling == {"temperature": 0.6, "top_k": 20}


def test_a_text_model_within_a_larger_one_is_found(folder: Path):
    config = json.loads((folder / "config.json").read_text())
    shape = {k: v for k, v in config.items() if k != "model_type"}
    nested = {"model_type": "outer", "text_config": {**shape, "model_type": "inner"}}
    (folder / "config.json").write_text(json.dumps(nested))
    card = read_card(folder)
    assert (card.architecture, card.family) == ("outer", "inner")


def cut(file: Path, size: int) -> None:
    file.write_bytes(file.read_bytes()[:size])


def announce(file: Path, length: int) -> None:
    file.write_bytes(struct.pack("<Q", length) + file.read_bytes()[8:])


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda f: (f / "config.json").unlink(), r"config\.json is missing"),
        (lambda f: (f / "config.json").write_text("{"), "no valid JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "no JSON object"),
        (lambda f: edit_config(f, hidden_size=None), "hidden_size"),
        (lambda f: edit_config(f, num_hidden_layers="many"), "wrong value"),
        (lambda f: edit_config(f, num_hidden_layers=0), "wrong value"),
        (lambda f: (f / "model.safetensors").unlink(), "no model"),
        (lambda f: (f / "tokenizer.json").unlink(), "tokenizer"),
        (lambda f: cut(f / "model.safetensors", 5), "cut short"),
        (lambda f: cut(f / "model.safetensors", 200), "cut short"),
        (lambda f: cut(f / "model.safetensors", 100_000), "its header says"),
        (lambda f: announce(f / "model.safetensors", 2**60), "cut short"),
        (lambda f: announce(f / "model.safetensors", 100), "header is damaged"),
    ],
)
def test_whatever_is_wrong_with_the_files_is_said(folder: Path, damage, match: str):
    damage(folder)
    with pytest.raises(ModelInvalid, match=match):
        read_card(folder)


def test_a_file_that_the_index_names_must_be_there(tmp_path: Path):
    folder = make_model(tmp_path / "parts", files=3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(ModelInvalid, match=r"model-00002-of-00003\.safetensors is missing"):
        read_card(folder)
