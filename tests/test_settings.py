"""Settings: their names, their limits, and that the example file tells the truth."""

from __future__ import annotations

import re

import pytest
from pydantic import ValidationError

from llamabda.settings import GONE, Settings, obsolete, settings, unsafe
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def bare(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in (*Settings.model_fields, *GONE, "llamabda_home"):
        monkeypatch.delenv(name.upper(), raising=False)


def names() -> dict[str, str]:
    """Setting by environment name."""
    return {("LLAMABDA_HOME" if name == "home" else name.upper()): name for name in Settings.model_fields}


def test_the_example_file_shows_every_setting_with_its_default(monkeypatch, tmp_path):
    example = (ROOT / ".env.example").read_text("utf-8")
    shown = set(re.findall(r"^(?:# )?([A-Z_]+)=", example, re.MULTILINE))
    assert shown == set(names())
    (tmp_path / ".env").write_text(example, "utf-8")
    assert Settings() == Settings(_env_file=None)


def test_the_readme_names_every_setting():
    table = (ROOT / "README.md").read_text("utf-8").split("## Settings")[1].split("\n## ")[0]
    assert {name for name in names() if f"`{name}`" not in table} == set()


def test_the_environment_wins_over_the_file(monkeypatch, tmp_path):
    (tmp_path / ".env").write_text("PORT=1234\nAPP_NAME=File\n", "utf-8")
    monkeypatch.setenv("PORT", "4321")
    assert (Settings().port, Settings().app_name) == (4321, "File")


@pytest.mark.parametrize(
    ("name", "value"), [("PORT", "x"), ("PORT", "70000"), ("ASK_DEADLINE_SECONDS", "0"), ("EMBED_BACKEND", "magic")]
)
def test_a_wrong_value_is_refused_by_name(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError, match=name.lower()):
        Settings()


@pytest.mark.parametrize("name", GONE)
def test_a_setting_without_effect_is_named_with_what_replaced_it(monkeypatch, name):
    assert obsolete() == []
    monkeypatch.setenv(name, "secret value")
    (warning,) = obsolete()
    assert name in warning
    assert GONE[name] in warning
    assert "secret value" not in warning


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GENERATOR_URL", "http://me:hunter2@host/v1"),
        ("GENERATOR_URL", "host:8080?hunter2"),
        ("GENERATOR_API_KEY", "hunter2\r\nX-Other: 1"),
        ("GENERATOR_API_KEY", "hunter2 é"),
    ],
)
def test_a_wrong_secret_is_refused_without_repeating_it(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError, match=name.lower()) as refused:
        Settings()
    assert "hunter2" not in str(refused.value)


def test_a_key_is_not_shown(monkeypatch):
    monkeypatch.setenv("GENERATOR_API_KEY", " hunter2\n")
    found = Settings()
    assert found.generator_api_key.get_secret_value() == "hunter2"
    assert "hunter2" not in f"{found!r} {found} {found.model_dump()} {found.model_dump_json()}"


@pytest.mark.parametrize(
    ("url", "key", "warned"),
    [
        ("http://10.0.0.1/v1", "hunter2", True),
        ("https://10.0.0.1/v1", "hunter2", False),
        ("http://127.0.0.1/v1", "hunter2", False),
        ("http://10.0.0.1/v1", "", False),
        ("", "hunter2", False),
    ],
)
def test_a_key_that_would_travel_unencrypted_is_warned_of(monkeypatch, url, key, warned):
    monkeypatch.setenv("GENERATOR_URL", url)
    monkeypatch.setenv("GENERATOR_API_KEY", key)
    settings.cache_clear()
    try:
        warnings = unsafe()
    finally:
        settings.cache_clear()
    assert bool(warnings) is warned
    assert "hunter2" not in "".join(warnings)
