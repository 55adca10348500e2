"""`llamabda models`: what it prints where, and how it exits. Without torch; see test_export for what needs it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from llamabda import exported, wiring, wiring_models
from llamabda.catalogue import CATALOGUE
from llamabda.settings import Settings, settings
from tests.command_line import runner
from tests.test_exported import export_of, original_in

EMBEDDER, GENERATOR = "sentence-transformers/all-MiniLM-L6-v2", "smollm2-135m-instruct"


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs a command with default settings: exit code, stdout, stderr."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("LLAMABDA_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    settings.cache_clear()

    yield runner(capsys)
    settings.cache_clear()


@pytest.fixture
def empty_cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("LLAMABDA_CACHE", str(tmp_path / "cache"))
    return wiring_models.models_dir()


@pytest.fixture
def original(tmp_path):
    return original_in(tmp_path / "mine")


@pytest.fixture
def export(empty_cache, original):
    return export_of(exported.folder_source(original), "mine", empty_cache)


def listed(out: str) -> dict[str, dict[str, object]]:
    return {row["name"]: row for row in json.loads(out)["models"]}


@pytest.mark.usefixtures("empty_cache")
def test_the_list_shows_the_catalogue_and_what_is_configured(run, tmp_path):
    code, out, _ = run("models", "list")
    assert code == 0
    for name, entry in CATALOGUE.items():
        (line,) = [line for line in out.splitlines() if f" {name} " in line]
        assert line.startswith("*") == (name in (EMBEDDER, GENERATOR))
        for cell in (entry.kind, entry.licence, *entry.languages, f"{entry.download_size / 1e6:.0f} MB", "not fetched"):
            assert cell in line
    assert not (tmp_path / "home").exists()


@pytest.mark.usefixtures("export")
def test_the_list_as_json_has_every_field(run):
    code, out, err = run("models", "list", "--json")
    assert (code, err) == (0, "")
    rows = listed(out)
    assert set(rows) == {*CATALOGUE, "mine"}
    assert rows["mine"] == {
        "kind": "embedder",
        "name": "mine",
        "origin": "exported",
        "languages": ["pt"],
        "licence": "MIT",
        "download_size": None,
        "state": "ready",
        "configured": False,
    }
    assert rows[GENERATOR]["download_size"] == CATALOGUE[GENERATOR].download_size


def test_a_model_that_is_there_is_listed_as_ready(run):
    assert run("models", "get", EMBEDDER)[0] == 0
    assert listed(run("models", "list", "--json")[1])[EMBEDDER]["state"] == "ready"


@pytest.mark.usefixtures("export")
@pytest.mark.parametrize("configured", ["mine", "./mine"])
def test_an_export_can_be_configured_by_name_or_by_folder(run, monkeypatch, configured):
    monkeypatch.setenv("EMBED_MODEL_NAME", configured)
    rows = listed(run("models", "list", "--json")[1])
    assert {name for name, row in rows.items() if row["configured"]} == {"mine", GENERATOR}
    prepared = wiring.prepare_embedder(model=wiring.wanted_model())
    assert prepared == exported.place("mine", wiring_models.models_dir())


@pytest.mark.usefixtures("export")
def test_the_list_says_when_an_original_was_changed(run, original):
    (original / "model.safetensors").write_bytes(b"trained some more")
    assert "ready, original changed (exported)" in run("models", "list")[1]


def test_get_prepares_a_model_and_names_the_setting(run):
    code, out, err = run("models", "get", EMBEDDER)
    folder = wiring_models.prepare_model(EMBEDDER, offline=True)
    assert (code, out) == (0, f"{EMBEDDER} is ready in {folder}\n")
    assert f"EMBED_MODEL_NAME={EMBEDDER}" in err
    code, out, _ = run("models", "get", EMBEDDER, "--json")
    assert json.loads(out) == {"name": EMBEDDER, "kind": "embedder", "path": str(folder)}


def test_get_of_an_export_has_nothing_to_do(run, export):
    code, out, _ = run("models", "get", "mine", "--json")
    assert (code, json.loads(out)["path"]) == (0, str(export))


@pytest.mark.usefixtures("empty_cache")
def test_get_of_an_unknown_name_lists_the_catalogue(run):
    code, out, err = run("models", "get", "nobody/nothing")
    assert (code, out) == (3, "")
    assert all(name in err for name in ("nobody/nothing", *CATALOGUE, "models export"))


@pytest.mark.usefixtures("empty_cache")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([EMBEDDER], "is in the catalogue"),
        (["mine", "--name", EMBEDDER], "is in the catalogue"),
        (["mine", "--name", " "], "--name is empty"),
        (["mine", "--background", "1"], "not a cosine"),
        (["mine", "--background", "high"], "not a cosine"),
        (["mine", "--languages", "Portuguese"], "language codes"),
        (["mine", "--languages", "pt,"], "language codes"),
        (["mine", "--precision", "int4"], "int4"),
        (["mine", "--max-tokens", "0"], "whole number"),
        ([], "NAME"),
    ],
)
def test_export_refuses_what_makes_no_sense(run, arguments, said):
    code, out, err = run("models", "export", *arguments)
    assert (code, out) == (2, "")
    assert said in err


@pytest.mark.usefixtures("export")
def test_a_name_that_stands_for_another_export_is_not_taken_over(run, tmp_path, original):
    other = original_in(tmp_path / "other" / "mine")
    code, _, err = run("models", "export", str(other))
    assert code == 4
    assert str(original) in err
    assert "--name" in err


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="torch is installed")
@pytest.mark.parametrize("model", ["mine", "owner/model", EMBEDDER])
@pytest.mark.usefixtures("empty_cache", "original")
def test_without_torch_export_says_what_to_install_and_fetches_nothing(run, model, tmp_path):
    code, out, err = run("models", "export", model, "--name", "tried")
    assert (code, out) == (2, "")
    assert "install torch, then llamabda[export]" in err
    assert not (tmp_path / "cache").exists()
