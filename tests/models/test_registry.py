from pathlib import Path

import pytest

from exo.errors import ModelInvalid, ModelNotFound
from exo.models.registry import Registry
from tests.models_maker import make_model


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


def test_the_bundled_model_is_always_there(models: Path):
    card = Registry(models).resolve("exo-demo")
    assert card.path is not None
    assert card.model_id == "exo-demo"


def test_a_short_name_an_alias_and_the_hub_id_mean_the_same(models: Path):
    registry = Registry(models)
    names = ["llama-3.2-1b", "llama-3.2-1b-4bit", "mlx-community/Llama-3.2-1B-Instruct-4bit"]
    assert {registry.resolve(name).model_id for name in names} == {"llama-3.2-1b"}
    assert registry.resolve("llama-3.2-1b").path is None


@pytest.mark.parametrize(
    "place",
    [
        "llama-3.2-1b",
        "mlx-community--Llama-3.2-1B-Instruct-4bit",
        "mlx-community/Llama-3.2-1B-Instruct-4bit",
        "Llama-3.2-1B-Instruct-4bit",
    ],
)
def test_weights_of_a_known_model_are_found_in_the_models_folder(models: Path, place: str):
    folder = make_model(models / place)
    card = Registry(models).resolve("llama-3.2-1b")
    assert card.path == folder
    assert card.n_layers == 3  # What the folder says, not what the card expects.
    assert card.aliases == ("llama-3.2-1b-4bit",)
    assert [c.model_id for c in Registry(models).all() if c.path == folder] == ["llama-3.2-1b"]


def test_any_folder_is_a_model_by_its_name(models: Path):
    make_model(models / "mine")
    make_model(models / "org--theirs")
    registry = Registry(models)
    assert registry.resolve("mine").model_id == "mine"
    assert registry.resolve("org/theirs").model_id == "org/theirs"
    assert registry.resolve("org--theirs").model_id == "org/theirs"
    assert {"mine", "org/theirs"} <= {card.model_id for card in registry.all()}


def test_a_folder_elsewhere_is_a_model_by_its_path(models: Path, tmp_path: Path):
    folder = make_model(tmp_path / "elsewhere" / "mine")
    registry = Registry(models)
    assert registry.resolve(str(folder)).model_id == "mine"
    make_model(models / "mine")
    assert registry.resolve(str(folder)).model_id == str(folder)


def test_models_with_weights_come_first(models: Path):
    make_model(models / "zzz")
    available = [card.path is not None for card in Registry(models).all()]
    assert available == sorted(available, reverse=True)


def test_an_unknown_name_is_answered_with_the_nearest(models: Path):
    with pytest.raises(ModelNotFound, match=r"Did you mean .*llama-3\.2-1b"):
        Registry(models).resolve("llama-3.2-1")
    with pytest.raises(ModelNotFound) as caught:
        Registry(models).resolve("qqqqqqqqqq")
    assert "Did you mean" not in caught.value.message


def test_a_damaged_folder_is_not_listed_and_says_why_when_asked_for(models: Path):
    folder = make_model(models / "mine")
    (folder / "tokenizer.json").unlink()
    registry = Registry(models)
    assert "mine" not in {card.model_id for card in registry.all()}
    with pytest.raises(ModelInvalid, match=r"tokenizer\.json"):
        registry.resolve("mine")


def test_new_folders_are_seen_without_a_restart(models: Path):
    registry = Registry(models)
    with pytest.raises(ModelNotFound):
        registry.resolve("mine")
    make_model(models / "mine")
    assert registry.resolve("mine").path


@pytest.mark.parametrize("name", ["", ".", "..", "/", "~", "../..", "no/such", "a" * 5000, "\0"])
def test_odd_names_are_not_found_or_invalid(models: Path, name: str):
    with pytest.raises((ModelNotFound, ModelInvalid)):
        Registry(models).resolve(name)
