"""Folders of encoders: what they are, and what is wrong with them, by their headers."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from exo.errors import ModelInvalid
from exo.models.card import ModelCard, Task
from exo.models.folder import read_card
from exo.models.pooling import read_pooling
from exo.models.registry import Registry
from tests.encoder_maker import FAMILIES, HEADS, HIDDEN, LAYERS, LONGEST, make_encoder, say_pooling


def edit(folder: Path, name: str, **changes: Any) -> None:
    """Change what a file says; None takes a name out."""
    file = folder / name
    data = json.loads(file.read_text()) if file.exists() else {}
    data = {k: v for k, v in {**data, **changes}.items() if v is not None}
    file.write_text(json.dumps(data))


def tensors_of(folder: Path) -> dict[str, mx.array]:
    found = mx.load(str(folder / "model.safetensors"))
    assert isinstance(found, dict)
    mx.eval(found)  # Before the file is written again.
    return found


def save(folder: Path, tensors: dict[str, mx.array], name: str = "model.safetensors") -> None:
    mx.save_safetensors(str(folder / name), tensors, metadata={"format": "pt"})


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_folder_is(tmp_path: Path, family: str):
    card = read_card(make_encoder(tmp_path / "m", family))
    assert (card.family, card.tasks) == (family, (Task.EMBEDDING,))
    assert (card.n_layers, card.hidden_size, card.n_heads) == (LAYERS, HIDDEN, HEADS)
    assert (card.context_length, card.dtype) == (LONGEST, "float32")
    assert card.boundaries == (0, LAYERS)
    assert card.shares is None
    assert card.encodes
    assert card.does(Task.EMBEDDING)
    assert not card.does(Task.TEXT)
    parts = card.parts
    assert sum(p.total for p in parts.layers) + parts.embedding.total == card.storage_size
    assert ModelCard.model_validate(card.model_dump()) == card
    assert read_pooling(tmp_path / "m").size == HIDDEN


def test_only_what_is_needed_is_counted(tmp_path: Path):
    plain = read_card(make_encoder(tmp_path / "a"))
    folder = make_encoder(tmp_path / "b", prefix="bert.")
    more = {"cls.predictions.bias": mx.zeros(300), "bert.embeddings.position_ids": mx.arange(180)}
    save(folder, {**tensors_of(folder), **more})
    assert read_card(folder).storage_size == plain.storage_size


def test_names_of_old_files(tmp_path: Path):
    folder = make_encoder(tmp_path / "m")
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    tensors = tensors_of(folder)
    for new, name in old.items():
        tensors = {key.replace(new, name): value for key, value in tensors.items()}
    save(folder, tensors)
    assert read_card(folder).n_layers == LAYERS


def test_the_longest_text_is_what_the_folder_says(tmp_path: Path):
    folder = make_encoder(tmp_path / "m")
    for said, right in ((100, 100), (LONGEST + 9, LONGEST), (0, LONGEST)):
        edit(folder, "sentence_bert_config.json", max_seq_length=said)
        assert read_card(folder).context_length == right


def test_several_files(tmp_path: Path):
    folder = make_encoder(tmp_path / "m")
    whole = read_card(folder)
    tensors = tensors_of(folder)
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    places: dict[str, str] = {}
    for number in range(2):
        file = f"model-0000{number + 1}-of-00002.safetensors"
        save(folder, {name: tensors[name] for name in names[number::2]}, file)
        places |= dict.fromkeys(names[number::2], file)
    edit(folder, "model.safetensors.index.json", weight_map=places)
    assert read_card(folder).weights == whole.weights
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelInvalid, match=r"model-00002-of-00002\.safetensors is missing"):
        read_card(folder)
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(ModelInvalid, match="more tensors are missing"):
        read_card(folder)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model_type": "modernbert", "num_attention_heads": 4}, "tok_embeddings"),
        ({"hidden_size": 32}, "300 x 64 where config.json says 300 x 32"),
        ({"num_hidden_layers": 4}, "encoder.layer.3.* more tensors are missing"),
        ({"num_attention_heads": 5}, "fit no model"),
        ({"num_hidden_layers": "many"}, "damaged"),
        ({"vocab_size": None}, "has no 'vocab_size'"),
        ({"position_embedding_type": "alibi"}, "position_embedding_type = 'alibi'"),
        ({"is_decoder": True}, "is_decoder"),
        ({"hidden_act": "swoosh"}, "swoosh"),
        ({"quantization": {"bits": 4, "group_size": 64}}, "quantised"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_used(tmp_path: Path, changes: dict[str, Any], told: str):
    folder = make_encoder(tmp_path / "m")
    edit(folder, "config.json", **changes)
    with pytest.raises(ModelInvalid, match=told):
        read_card(folder)


@pytest.mark.parametrize(
    ("family", "changes", "told"),
    [
        ("nomic_bert", {"rotary_scaling_factor": 2}, "scaling"),
        ("nomic_bert", {"prenorm": True}, "prenorm"),
        ("nomic_bert", {"num_experts": 8}, "num_experts"),
        ("gte", {"rope_scaling": {"type": "ntk", "factor": 8.0}}, "rotation"),
        ("gte", {"rope_parameters": {"rope_type": "yarn"}}, "rotation"),
        ("modernbert", {"layer_types": ["full_attention"]}, "layer_types"),
        ("modernbert", {"layer_types": ["linear_attention"] * LAYERS}, "linear_attention"),
        ("roberta", {"pad_token_id": LONGEST + 5}, "fit no model"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_a_family_does_not_have(
    tmp_path: Path, family: str, changes: dict[str, Any], told: str
):
    folder = make_encoder(tmp_path / "m", family)
    edit(folder, "config.json", **changes)
    with pytest.raises(ModelInvalid, match=told):
        read_card(folder)


def test_types_that_cannot_be_computed(tmp_path: Path):
    folder = make_encoder(tmp_path / "m")
    tensors = tensors_of(folder)
    tensors["embeddings.LayerNorm.bias"] = mx.zeros(HIDDEN, mx.int32)
    save(folder, tensors)
    with pytest.raises(ModelInvalid, match="I32"):
        read_card(folder)


def test_a_folder_without_a_tokenizer(tmp_path: Path):
    folder = make_encoder(tmp_path / "m")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelInvalid, match=r"tokenizer\.json"):
        read_card(folder)


def test_it_is_found_by_its_hub_id(tmp_path: Path):
    say_pooling(make_encoder(tmp_path / "BAAI--bge-tiny"), "cls_token")
    registry = Registry(tmp_path)
    assert registry.resolve("BAAI/bge-tiny").encodes
    assert "BAAI/bge-tiny" in {card.model_id for card in registry.all()}


# How states become a vector.


def test_a_folder_that_says_nothing_means_the_mean(tmp_path: Path):
    found = read_pooling(make_encoder(tmp_path / "m", "distilbert"))
    assert (found.kind, found.normalize, found.size) == ("mean", True, HIDDEN)


@pytest.mark.parametrize(
    ("mode", "kind"), [("cls", "first"), ("mean", "mean"), ("lasttoken", "last")]
)
def test_as_newer_versions_write_it(tmp_path: Path, mode: str, kind: str):
    folder = make_encoder(tmp_path / "m")
    found = read_pooling(say_pooling(folder, normalize=False, pooling_mode=mode))
    assert (found.kind, found.normalize) == (kind, False)
