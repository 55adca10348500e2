"""Exported models in the cache: found by name or by what they were made of, and known when that changes. No torch."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from llamabda import exported
from llamabda.errors import ModelError
from llamabda.models import fetch

ABOUT = {"name": "ours", "dim": 3, "fingerprint": "ours-int8-0", "languages": ["pt"], "licence": "MIT"}


def original_in(folder: Path) -> Path:
    """What is looked at of a sentence-transformers folder: that it is one, and its files."""
    folder.mkdir(parents=True)
    (folder / "modules.json").write_text("[]")
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / ".git").mkdir()
    (folder / ".git" / "index.json").write_text("{}")
    return folder


def export_of(source: dict[str, object], name: str, cache: Path) -> Path:
    folder = exported.place(name, cache)
    folder.mkdir(parents=True)
    (folder / "embedder.json").write_text(json.dumps(ABOUT | {"name": name}))
    exported.write_record(folder, name, source, {"torch": "2"})
    return folder


@pytest.fixture
def original(tmp_path):
    return original_in(tmp_path / "originals" / "ours")


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def folder(original, cache):
    return export_of(exported.folder_source(original), "ours", cache)


def test_an_export_is_found_by_its_name(folder, cache):
    assert fetch("ours", cache=cache, offline=True) == folder


@pytest.mark.parametrize("spelling", ["{}", "{}/", "{}/../ours", "file://{}"])
def test_an_export_is_found_by_the_folder_it_was_made_of(folder, cache, original, spelling):
    assert fetch(spelling.format(original), cache=cache) == folder


def test_an_export_is_found_by_a_relative_path(folder, cache, original, monkeypatch):
    monkeypatch.chdir(original.parent.parent)
    assert fetch("originals/ours", cache=cache) == folder


def test_a_model_of_the_hub_is_found_by_its_name_there(cache):
    source = {"kind": "hub", "name": "owner/model", "revision": "0a"}
    folder = export_of(source, "owner/model", cache)
    assert fetch("owner/model", cache=cache) == folder
    with pytest.raises(ModelError, match="unknown model"):
        fetch("owner--model", cache=cache)


def test_two_names_never_share_a_folder(cache):
    names = ["owner/model", "owner--model", "owner model", "OWNER/model", "." * 80, "." * 81]
    assert len({exported.place(name, cache) for name in names}) == len(names)
    assert all(exported.place(name, cache).parent == cache / "exported" for name in names)


def test_torch_gets_the_original(folder, cache, original):
    assert fetch("ours", cache=cache, prepared=False) == original
    assert fetch(str(original), cache=cache, prepared=False) == original


def test_an_unchanged_original_is_passed_over_in_silence(folder, cache, original):
    os.utime(original / "model.safetensors", (1, 1))  # copied, but the same
    (original / ".git" / "index.json").write_text("[]")
    (original / "README.md").write_text("now with a card")
    lines: list[str] = []
    assert fetch("ours", cache=cache, progress=lines.append) == folder
    assert lines == []


@pytest.mark.parametrize("change", ["size", "content", "removed", "added"])
def test_a_changed_original_is_noticed_and_the_export_still_serves(folder, cache, original, change):
    weights = original / "model.safetensors"
    if change == "removed":
        weights.unlink()
    elif change == "added":
        (original / "config_sentence_transformers.json").write_text('{"prompts": {"query": "query: "}}')
    else:
        weights.write_bytes(b"WEIGHTS" if change == "content" else b"more weights")
        os.utime(weights, (1, 1))
    lines: list[str] = []
    assert fetch("ours", cache=cache, progress=lines.append) == folder
    (line,) = lines
    assert str(original) in line
    assert "models export" in line


def test_an_export_that_steps_aside_for_its_successor_is_not_found(folder, cache):
    aside = folder.with_name(folder.name + ".old")
    shutil.copytree(folder, aside)
    (aside / "embedder.json").write_text(json.dumps(ABOUT | {"name": "ours", "dim": 4}))
    assert [one.folder for one in exported.every(cache)] == [folder]
    assert fetch("ours", cache=cache) == folder


def test_an_export_outlives_its_original(folder, cache, original):
    original.rename(original.with_name("elsewhere"))
    lines: list[str] = []
    assert fetch("ours", cache=cache, progress=lines.append) == folder
    assert lines == []


def test_a_folder_that_was_not_exported_says_what_to_do(cache, tmp_path):
    folder = original_in(tmp_path / "new")
    with pytest.raises(ModelError, match=r"llamabda models export .*/new.*EMBED_BACKEND=sentence_transformers"):
        fetch(str(folder), cache=cache)
    assert fetch(str(folder), cache=cache, prepared=False) == folder


def test_an_exported_folder_can_be_moved_anywhere(folder, cache, tmp_path):
    moved = folder.rename(tmp_path / "moved")
    assert fetch(str(moved), cache=cache) == moved


@pytest.mark.parametrize("damage", ["", "[]", '{"name": "ours"}', '{"name": "ours", "source": {"kind": "folder"}}'])
def test_a_record_that_cannot_be_read_is_no_export(folder, cache, damage):
    (folder / exported.RECORD).write_text(damage)
    assert exported.every(cache) == []
    with pytest.raises(ModelError, match="unknown model 'ours'"):
        fetch("ours", cache=cache)
