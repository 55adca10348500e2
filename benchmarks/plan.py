"""What one run works with: sizes, threads, models and the rival's interpreter."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.corpus import Corpus

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Plan:
    quick: bool
    rounds: int
    threads: int  # the same for every contender
    corpus: Corpus
    embedder_folder: Path  # as our adapter wants it
    published_folder: Path  # the same model as it was published, for the rival
    gguf: Path | None  # None: no model is configured, generation is left out
    rival_python: Path | None  # interpreter that has torch and sentence-transformers; None: not there
    say: Callable[[str], None]


def rival_python(given: Path | None) -> Path | None:
    """The interpreter of the rival's environment: the one given, else that of scripts/bench_env.py, if it is there."""
    python = given or ROOT / ".venv-bench" / "bin" / "python"
    return python if python.is_file() else None


def own_python() -> Path:
    return Path(sys.executable)
