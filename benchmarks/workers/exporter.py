"""`llamabda models export` in the environment that has torch, where the package itself is not installed."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.workers.loop import serve

PACKAGE = Path(__file__).resolve().parent.parent.parent / "layers" / "shared"


def export(folder: str, cache: str, threads: int) -> dict[str, str]:
    """The folder of the exported model and its precision."""
    sys.path.insert(0, str(PACKAGE))
    from llamabda.export import export as run

    made = run(folder, name="exported", cache=Path(cache), threads=threads, say=print)
    return {"folder": str(made.folder), "precision": str(made.about["precision"])}


if __name__ == "__main__":
    serve({"export": export})
