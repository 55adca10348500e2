"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The evaluation data: `LLAMABDA_DATA`, else `../shared/data` beside the checkout. Skips when it is absent."""
    folder = Path(os.environ.get("LLAMABDA_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no evaluation data at {folder}: set LLAMABDA_DATA to its folder")
    return folder
