"""Where and with what a run was made: nothing that names the machine or a place on it."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from llamabda.cpu import available_cpus

# what decides which kernels run
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimddp", "i8mm", "sve")
_PACKAGES = ("llamabda", "onnxruntime", "tokenizers", "llama-cpp-python", "numpy")


def describe(rival: Mapping[str, str]) -> dict[str, str]:
    """Name -> value, ready to be shown. `rival`: versions in the rival's environment."""
    info = _cpuinfo()
    flags = set((info.get("flags") or info.get("Features") or "").split())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    import sqlite3

    return (
        {
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
            "processor": info.get("model name") or platform.machine(),
            "processors used": str(available_cpus()),
            "instructions": ", ".join(flag for flag in _FLAGS if flag in flags) or "not known",
            "memory": f"{memory:.0f} GB",
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version,
        }
        | {name: _version(name) for name in _PACKAGES}
        | {f"{name} (rival)": value for name, value in rival.items()}
    )


def _cpuinfo() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", errors="replace")
    except OSError:  # not Linux
        return {}
    pairs = (line.partition(":") for line in text.split("\n\n", 1)[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
