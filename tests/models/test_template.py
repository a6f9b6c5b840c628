"""A chat template as it lies in a model's folder."""

import json
from pathlib import Path

import pytest

from exo.models.template import capabilities, read_template


def test_a_template_of_its_own_or_in_the_config(tmp_path: Path):
    assert read_template(tmp_path) == ""
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps({"chat_template": "{{ old }}"}), "utf-8")
    assert read_template(tmp_path) == "{{ old }}"
    (tmp_path / "chat_template.jinja").write_text("{{ new }}", "utf-8")
    assert read_template(tmp_path) == "{{ new }}"


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"chat_template": [1]}', '{"chat_template": null}']
)
def test_files_that_have_none(tmp_path: Path, text: str):
    (tmp_path / "tokenizer_config.json").write_text(text, "utf-8")
    assert read_template(tmp_path) == ""


def test_what_a_template_shows():
    assert capabilities("") == ["completion"]
    assert capabilities("{% if tools %}") == ["completion", "tools"]
    assert capabilities("<think> tools") == ["completion", "tools", "thinking"]
    assert capabilities("<|channel|>analysis") == ["completion", "thinking"]
