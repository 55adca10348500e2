"""Fixtures for the contract suites."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def gguf() -> Path:
    """The demo's model: `LLAMABDA_TEST_GGUF`, else from the model cache, which is filled when it is empty."""
    given = os.environ.get("LLAMABDA_TEST_GGUF")
    if given:
        return Path(given)
    from llamabda.adapters.llama_cpp import requantize
    from llamabda.catalogue import CATALOGUE
    from llamabda.models import fetch

    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    cache = Path(os.environ.get("LLAMABDA_CACHE") or home / "llamabda") / "models"
    name = "smollm2-135m-instruct"
    kind = CATALOGUE[name].preparation
    return fetch(name, cache=cache, preparations={kind: requantize} if kind else {})
