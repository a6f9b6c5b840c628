"""The folders of image models: what they are is told, and what is wrong with them is found before
anything is loaded."""

import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from exo.errors import ModelInvalid
from exo.models.card import Quantization, Task
from exo.models.image_folder import read_image_card
from exo.models.image_variants import VARIANTS
from exo.models.registry import Registry
from exo.models.shipped import shipped_card, shipped_cards
from tests.inference.image import maker
from tests.inference.image.conftest import Folders

TOOL = Path(maker.image_names.__file__)


@pytest.fixture
def copied(folders: Folders, tmp_path: Path) -> Callable[..., Path]:
    """A folder that may be changed, and does not say what it is."""

    def copy(variant: str, name: str = "model", *, hub: bool = False) -> Path:
        folder = Path(shutil.copytree(folders(variant, hub=hub), tmp_path / name))
        if VARIANTS[variant].family != "flux2":  # Of these the file says how large they are.
            (folder / "exo.json").unlink()
        return folder

    return copy


def test_a_card_has_what_placement_needs(folders: Folders) -> None:
    card = read_image_card(folders("flux.1-dev"), "mine")
    assert (card.model_id, card.family, card.architecture) == ("mine", "flux", "flux.1-dev")
    assert card.tasks == (Task.IMAGE,)
    assert card.image is not None
    assert (card.image.steps, card.image.min_side) == (25, 32)
    assert card.n_layers == 4
    assert card.hidden_size == 64
    assert card.quantization is None
    files = [*folders("flux.1-dev").rglob("*.safetensors")]
    headers = sum(8 + struct.unpack("<Q", file.read_bytes()[:8])[0] for file in files)
    assert card.storage_size == sum(file.stat().st_size for file in files) - headers
    parts = card.parts
    assert len(parts.layers) == 4
    assert sum(part.total for part in parts.layers) + parts.embedding.total == card.storage_size


@pytest.mark.parametrize("variant", ["flux.1-schnell", "flux.2-klein-4b", "z-image"])
def test_a_quantised_card(folders: Folders, variant: str) -> None:
    card = read_image_card(folders(variant, bits=8))
    assert card.quantization == Quantization(bits=8, group_size=32)
    assert 0 < card.packed_size < card.storage_size


@pytest.mark.parametrize(
    ("variant", "name"),
    [
        ("flux.1-schnell", "anything"),
        ("flux.1-dev", "anything"),
        ("flux.1-kontext-dev", "FLUX.1-Kontext-dev-mflux-4bit"),
        ("flux.1-krea-dev", "FLUX.1-Krea-dev"),
        ("qwen-image", "Qwen-Image-mflux"),
        ("qwen-image-edit", "Qwen-Image-Edit-2509"),
        ("qwen-image-edit-2511", "Qwen-Image-Edit-2511"),
        ("z-image", "Z-Image"),
        ("z-image-turbo", "Z-Image-Turbo"),
    ],
)
def test_the_variant_is_told_by_the_files(
    copied: Callable[..., Path], variant: str, name: str
) -> None:
    assert read_image_card(copied(variant, name)).architecture == variant


@pytest.mark.parametrize("variant", ["flux.1-kontext-dev", "qwen-image-edit"])
def test_the_hubs_pipeline_tells_the_variant(copied: Callable[..., Path], variant: str) -> None:
    assert read_image_card(copied(variant, hub=True)).architecture == variant


def test_the_card_tells_the_variant(copied: Callable[..., Path]) -> None:
    folder = copied("flux.1-dev")
    assert read_image_card(folder, variant="flux.1-krea-dev").architecture == "flux.1-krea-dev"


def test_the_registry_finds_image_models(copied: Callable[..., Path], tmp_path: Path) -> None:
    models = tmp_path / "models"
    copied("flux.1-kontext-dev", "models/black-forest-labs--FLUX.1-Kontext-dev")
    copied("z-image-turbo", "models/somebody/z-turbo-tuned", hub=True)
    registry = Registry(models)
    known = registry.resolve("flux-kontext")
    assert known.path == models / "black-forest-labs--FLUX.1-Kontext-dev"
    assert (known.n_layers, known.architecture) == (4, "flux.1-kontext-dev")
    own = registry.resolve("somebody/z-turbo-tuned")
    assert own.architecture == "z-image-turbo"
    found = {card.model_id for card in registry.all() if card.path and models in card.path.parents}
    assert found == {"flux.1-kontext-dev", "somebody/z-turbo-tuned"}


def _cut(folder: Path) -> None:
    file = folder / "transformer" / "0.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def _empty(folder: Path) -> None:
    (folder / "vae" / "1.safetensors").write_bytes(b"")


def _lose_shard(folder: Path) -> None:
    (folder / "text_encoder" / "1.safetensors").unlink()


def _lose_component(folder: Path) -> None:
    shutil.rmtree(folder / "vae")


def _lose_tokenizer(folder: Path) -> None:
    shutil.rmtree(folder / "tokenizer")


def _lose_tensor(folder: Path) -> None:
    _rewrite(folder / "transformer" / "0.safetensors", lambda header: header.popitem())


def _reshape(folder: Path) -> None:
    def transpose(header: dict) -> None:
        name, entry = next((n, e) for n, e in header.items() if len(set(e["shape"])) == 2)
        header[name] = {**entry, "shape": entry["shape"][::-1]}

    _rewrite(folder / "transformer" / "1.safetensors", transpose)


def _rewrite(file: Path, change: Callable[[dict], object]) -> None:
    """Change the header of a file, and leave its data; what is lost at its end is cut off."""
    whole = file.read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    header = json.loads(whole[8 : 8 + length])
    said = header.pop("__metadata__")
    change(header)
    end = max(entry["data_offsets"][1] for entry in header.values())
    text = json.dumps({"__metadata__": said, **header}).encode()
    data = whole[8 + length : 8 + length + end]
    file.write_bytes(struct.pack("<Q", len(text)) + text + data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_cut, "bytes where its header says"),
        (_empty, "cut short"),
        (_lose_shard, "1.safetensors is missing, though the index names it"),
        (_lose_component, "it has no folder vae"),
        (_lose_tokenizer, "it has no tokenizer/tokenizer.json"),
        (_lose_tensor, "is missing"),
        (_reshape, "where the model's code has"),
    ],
)
def test_damage_is_found(
    copied: Callable[..., Path], damage: Callable[[Path], None], message: str
) -> None:
    folder = copied("z-image")
    damage(folder)
    with pytest.raises(ModelInvalid, match=message):
        read_image_card(folder)


def test_a_part_of_another_model_is_found(copied: Callable[..., Path]) -> None:
    folder = copied("z-image")
    shutil.rmtree(folder / "vae")
    shutil.copytree(copied("qwen-image", "other") / "vae", folder / "vae")
    with pytest.raises(ModelInvalid, match=r"vae.*is missing \(z-image\)"):
        read_image_card(folder)


def test_blocks_that_are_missing_are_found(copied: Callable[..., Path]) -> None:
    folder = copied("qwen-image", hub=True)
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    file.rename(folder / "transformer" / "kept")
    with pytest.raises(ModelInvalid, match=r"has no \*\.safetensors"):
        read_image_card(folder)


def test_a_variant_of_another_family_is_refused(copied: Callable[..., Path]) -> None:
    with pytest.raises(ModelInvalid, match="of z-image, and qwen-image of qwen-image"):
        read_image_card(copied("z-image"), variant="qwen-image")


def test_what_is_no_image_model_is_refused(copied: Callable[..., Path]) -> None:
    folder = copied("z-image")
    shutil.rmtree(folder / "transformer")
    shutil.copytree(folder / "text_encoder", folder / "transformer")
    with pytest.raises(ModelInvalid, match="of no image model"):
        read_image_card(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format"),
        ({"variant": "flux.9"}, "there is no variant 'flux.9'"),
        ({"colour": "red"}, "colour"),
        ({"variant": "z-image"}, "takes no overrides"),
        ({"traits": {"sizes": 3}}, "there are no traits sizes"),
        ({"traits": {"steps": 0}}, "traits.steps"),
        ({"transformer_overrides": {"num_layers": 2}}, "where the model's code has"),
        ({"text_encoder_overrides": {"num_hidden_layers": 9}}, "num_hidden_layers"),
    ],
)
def test_a_folder_that_says_nonsense_is_refused(
    copied: Callable[..., Path], change: dict, message: str
) -> None:
    folder = copied("flux.2-klein-4b")
    said = json.loads((folder / "exo.json").read_text())
    (folder / "exo.json").write_text(json.dumps({**said, **change}))
    with pytest.raises(ModelInvalid, match=message):
        read_image_card(folder)


def test_every_variant_has_a_card_that_fits_it() -> None:
    for name, variant in VARIANTS.items():
        card = shipped_card(name)
        assert card.family == variant.family
        assert card.image is not None
        assert card.image.min_steps <= card.image.qualities.low
        assert card.image.two_passes == (card.image.negative_prompt)
    names = [name for card in shipped_cards() for name in (card.model_id, *card.aliases)]
    assert len(names) == len(set(names))


def test_the_table_of_names_is_that_of_the_pinned_mflux() -> None:
    done = subprocess.run([sys.executable, TOOL, "--check"], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_reading_a_folder_needs_neither_mlx_nor_mflux(folders: Folders) -> None:
    code = (
        "import sys; from pathlib import Path; "
        "from exo.models.image_folder import read_image_card; "
        "read_image_card(Path(sys.argv[1])); assert not {'mlx', 'mflux', 'PIL'} & set(sys.modules)"
    )
    folder = folders("flux.2-klein-4b")
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)
