"""Which models there are, and what their names mean.

Three sources, the later ones adding weights to the earlier: the cards that ship with exo
(`cards/*.toml`), the bundled model, and the folders in the models folder. A hub model
`org/name` is found in the models folder as `org--name`, `org/name` or `name`.
"""

import difflib
from contextlib import suppress
from pathlib import Path

from exo.errors import ModelInvalid, ModelNotFound
from exo.models.card import ModelCard
from exo.models.folder import read_card
from exo.models.image_folder import is_image_folder, read_image_card
from exo.models.shipped import shipped_cards

_HERE = Path(__file__).parent
BUNDLED = _HERE / "bundled"


class Registry:
    """The models a node knows. Folders are read when they are asked for, so new ones are seen."""

    def __init__(self, models_dir: Path) -> None:
        self.models_dir = models_dir
        self._cards = shipped_cards()

    def all(self) -> list[ModelCard]:
        """Every known model, those with weights on this node first."""
        cards = {card.model_id: card for card in self._cards}
        for shipped in self._cards:
            with suppress(ModelInvalid):  # Asked for by name, it says what is wrong with it.
                cards[shipped.model_id] = self._locate(shipped)
        taken = {card.path for card in cards.values()}
        for folder in self._folders():
            if folder not in taken:
                with suppress(ModelInvalid):
                    card = _read(folder, self._folder_id(folder))
                    cards[card.model_id] = card
        return sorted(cards.values(), key=lambda card: (card.path is None, card.model_id))

    def resolve(self, name: str) -> ModelCard:
        """The model that `name` means: an id, a short name, a folder's name, or a folder's path.

        Raises:
            ModelNotFound: nothing has that name; the message has the nearest ones.
            ModelInvalid: it is a folder, and damaged.
        """
        for card in self._cards:
            if name == card.model_id or name in card.aliases or name == card.repo:
                return self._locate(card)
        for folder in self._folders():
            if name in {self._folder_id(folder), folder.name}:
                return _read(folder, self._folder_id(folder))
        if name.startswith((".", "~", "/")) and (path := _folder(name)):
            return _read(path, self._path_id(path))
        raise self._not_found(name)

    def _locate(self, card: ModelCard) -> ModelCard:
        """The card with the path and the sizes of the weights on this node, if they are here."""
        for candidate in self._candidates(card):
            if (candidate / "config.json").is_file() or is_image_folder(candidate):
                found = _read(candidate, card.model_id, card)
                kept = {"aliases": card.aliases, "repo": card.repo, "family": card.family}
                return found.model_copy(update=kept)
        return card

    def _candidates(self, card: ModelCard) -> list[Path]:
        names = [card.model_id]
        if card.repo:
            names += [card.repo.replace("/", "--"), card.repo, card.repo.rsplit("/", 1)[-1]]
        return [BUNDLED / card.model_id, *(self.models_dir / name for name in names)]

    def _folders(self) -> list[Path]:
        """Model folders, also those one level down (`org/name`)."""
        found: list[Path] = []
        for level in ("*", "*/*"):
            found += [
                config.parent for config in sorted(self.models_dir.glob(f"{level}/config.json"))
            ]
            parts = sorted(self.models_dir.glob(f"{level}/transformer"))
            found += [part.parent for part in parts if is_image_folder(part.parent)]
        # The parts of an image model have configurations as well.
        return [folder for folder in found if folder.parent not in found]

    def _folder_id(self, folder: Path) -> str:
        return folder.relative_to(self.models_dir).as_posix().replace("--", "/", 1)

    def _path_id(self, path: Path) -> str:
        """A folder given by path goes by its name, unless another model has that name."""
        taken = {card.model_id for card in self.all() if card.path != path}
        return str(path) if path.name in taken else path.name

    def _not_found(self, name: str) -> ModelNotFound:
        cards = self.all()
        names = [n for card in cards for n in (card.model_id, *card.aliases)]
        close = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
        near = f" Did you mean {' or '.join(close)}?" if close else ""
        return ModelNotFound(
            f"There is no model '{name}'.{near}",
            hint="`exo model list` shows the models; a folder may be given by its path.",
            param="model",
        )


def _read(folder: Path, model_id: str, card: ModelCard | None = None) -> ModelCard:
    """The model in a folder; one of images that does not say its variant is the card's."""
    if is_image_folder(folder):
        return read_image_card(folder, model_id, card.architecture if card and card.image else None)
    return read_card(folder, model_id)


def _folder(name: str) -> Path | None:
    """The folder at that path, None if there is none (or can be none of that name)."""
    try:
        path = Path(name).expanduser()
        return path.resolve() if path.is_dir() else None
    except (OSError, RuntimeError):  # Too long a name; the home of a user that does not exist.
        return None
