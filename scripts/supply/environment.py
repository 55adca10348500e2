"""The tools for this in an environment of their own: their pins are not ours."""

from __future__ import annotations

from pathlib import Path

from scripts import tool_venv

ROOT = Path(__file__).resolve().parents[2]


class SupplyError(Exception):
    """It cannot be done; the message says what would help."""


def install() -> Path:
    """Makes .venv-audit where it is not there yet; its folder of commands."""
    try:
        tool_venv.install("audit", "pip-audit and the CycloneDX library")
    except tool_venv.ToolError as exc:
        raise SupplyError(str(exc)) from exc
    return tool_venv.program("audit", "python").parent
