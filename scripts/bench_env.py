"""Makes `.venv-bench`: torch, sentence-transformers and what exports models, the rival of `make bench`.

torch stays out of every lock and out of `.venv`: it comes first, alone, from whatever index pip is configured for; on
top come the locked packages, verified. Running this again does nothing once all of it is there. Exit code 1, and a line
that says why, when it cannot be had; the benchmark then runs without the rival.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".venv-bench"
LOCK = ROOT / "locks" / "sentence-transformers.txt"
TORCH = "torch==2.13.0"
_CHECK = (
    "import sentence_transformers, torch; print('torch', torch.__version__, 'on', torch.get_num_threads(), 'threads')"
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the environment goes (default: .venv-bench)")
    folder: Path = parser.parse_args().folder
    if not LOCK.is_file():
        return _failed(f"there is no {LOCK.relative_to(ROOT)}")
    mark = folder / "made-from"  # written last: an environment that was interrupted is made anew
    wanted = f"{TORCH} {hashlib.sha256(LOCK.read_bytes()).hexdigest()} {sys.version_info[:2]}"
    python = folder / "bin" / "python"
    if mark.is_file() and mark.read_text("utf-8") == wanted:
        _say(f"{folder} is ready")
        return 0
    _say(f"making {folder} with Python {sys.version_info.major}.{sys.version_info.minor}")
    venv.create(folder, with_pip=True, clear=True)
    steps = (
        (f"installing {TORCH}: hundreds of megabytes, or gigabytes where the index has only builds for GPUs", [TORCH]),
        ("installing the locked packages", ["--require-hashes", "--no-deps", "--requirement", str(LOCK)]),
    )
    for line, what in steps:
        if not _run(line, [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--quiet", *what]):
            return _failed("pip's messages stand above")
    if not _run("trying it", [str(python), "-c", _CHECK]):
        return _failed("it is installed, but cannot be imported")
    mark.write_text(wanted, "utf-8")
    _say(f"{folder} is ready")
    return 0


def _run(line: str, command: list[str]) -> bool:
    """Runs a step, and says that it still runs every 15 seconds."""
    _say(line)
    start = time.monotonic()
    with subprocess.Popen(command) as process:
        while True:
            try:
                code = process.wait(15)
                break
            except subprocess.TimeoutExpired:
                _say(f"  still at it: {time.monotonic() - start:.0f} s")
    _say(f"  {time.monotonic() - start:.0f} s")
    return code == 0


def _failed(why: str) -> int:
    _say(f"the rival's environment cannot be made: {why}; the benchmark will run without it")
    return 1


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
