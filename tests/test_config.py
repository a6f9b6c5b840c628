from pathlib import Path

import pytest

from exo.config import Paths, find_paths, load_settings
from exo.errors import ConfigError, HomeError


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return find_paths({"EXO_HOME": str(tmp_path)})


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(paths: Paths):
    assert load_settings(paths, {}, {}).port == 52415
    paths.config_file.write_text("port = 1\n")
    assert load_settings(paths, {"port": None}, {}).port == 1
    assert load_settings(paths, {"port": None}, {"EXO_PORT": "2"}).port == 2
    assert load_settings(paths, {"port": 3}, {"EXO_PORT": "2"}).port == 3


@pytest.mark.parametrize(
    ("text", "environment", "match"),
    [
        ("port = 70000", {}, r"'port' from .*config\.toml"),
        ("", {"EXO_PORT": "many"}, "'port' from EXO_PORT"),
        ("prot = 1", {}, r"'prot' from .*config\.toml"),
        ("port = ", {}, "cannot be read"),
    ],
)
def test_a_wrong_setting_is_named_with_where_it_is(
    paths: Paths, text: str, environment: dict[str, str], match: str
):
    paths.config_file.write_text(text)
    with pytest.raises(ConfigError, match=match):
        load_settings(paths, {}, environment)


def test_exo_home_moves_everything(paths: Paths, tmp_path: Path):
    paths.prepare()
    for place in (paths.identity, paths.database, paths.models, paths.lock, paths.log, paths.cache):
        assert place.is_relative_to(tmp_path)


def test_without_exo_home_the_platforms_folders_are_used(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    found = find_paths({})
    assert found.data.is_relative_to(tmp_path)
    assert len({found.config, found.data, found.state}) > 1


def test_folders_are_private(paths: Paths):
    paths.prepare()
    assert paths.data.stat().st_mode & 0o077 == 0


def test_a_home_that_is_no_folder_is_a_clear_error(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(HomeError, match="cannot write"):
        find_paths({"EXO_HOME": str(tmp_path / "file")}).prepare()
