"""What an image's embedder needs, by the build argument EMBEDDER: `onnx`, or `sentence_transformers`.

    python embedder.py packages EMBEDDER FOLDER --lock FILE [--torch REQUIREMENT] [--torch-index ADDRESS]
    python embedder.py model EMBEDDER NAME...

`packages` makes FOLDER, which stays empty for onnx: its packages come with the function's own. Otherwise it takes what
the lock pins, and beside it torch, which no lock holds, for its builds differ by gigabytes: from the index that is
named, or from where pip finds everything else. `model` puts embedding models into LLAMABDA_CACHE: prepared for
onnxruntime, or as it was published. It needs the project.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ONNX, ORIGINAL = "onnx", "sentence_transformers"
EMBEDDERS = (ONNX, ORIGINAL)
PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input")
OPTIONS = ("--no-cache-dir", "--only-binary", ":all:")


def constraints(lock: str) -> str:
    """The versions that a lock pins, without its hashes, which would have to cover torch as well."""
    return "".join(f"{line.removesuffix(chr(92)).rstrip()}\n" for line in lock.splitlines() if re.match(r"\w", line))


def packages(embedder: str, folder: Path, lock: Path, torch: str, torch_index: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if embedder == ONNX:
        return
    into = ("--target", str(folder))
    with tempfile.TemporaryDirectory() as scratch:
        pinned, wheels = Path(scratch) / "constraints.txt", Path(scratch) / "wheels"
        pinned.write_text(constraints(lock.read_text("utf-8")), "utf-8")
        # torch alone from its own index: what it depends on is not looked for there
        index = ("--index-url", torch_index) if torch_index else ()
        _run(*PIP, "download", *OPTIONS, "--no-deps", *index, "--dest", str(wheels), torch)
        _run(*PIP, "install", *OPTIONS, "--require-hashes", "--no-deps", *into, "-r", str(lock))
        # what of torch's dependencies the lock has is there by now, in the same version, and left alone; pip would warn
        # of each
        _run(*PIP, "install", "--quiet", *OPTIONS, "--constraint", str(pinned), *into, *map(str, wheels.glob("*.whl")))


def model(embedder: str, name: str) -> None:
    from llamabda import wiring_models
    from llamabda.errors import LlamabdaError
    from llamabda.types import EmbeddingModel

    try:
        folder = wiring_models.fetch_embedder(EmbeddingModel(name, embedder), _say)
    except LlamabdaError as exc:
        raise SystemExit(f"error: {exc.message}") from exc
    if not folder.is_relative_to(wiring_models.models_dir()):
        raise SystemExit(
            f"error: {name} is a folder of its own: an image takes models of the catalogue, by their names"
        )
    if embedder == ORIGINAL and not (folder / "modules.json").is_file():
        raise SystemExit(
            f"error: {name} comes packed for onnxruntime, and for nothing else: build with EMBEDDER={ONNX}"
        )


def _run(*command: str) -> None:
    if subprocess.run(command, check=False).returncode:
        raise SystemExit(f"error: pip {command[len(PIP)]} failed; what it said is above")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _embedder(value: str) -> str:
    if value not in EMBEDDERS:
        raise argparse.ArgumentTypeError(f"EMBEDDER={value} is not known: use {' or '.join(EMBEDDERS)}")
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("packages")
    one.add_argument("embedder", type=_embedder)
    one.add_argument("folder", type=Path)
    one.add_argument("--lock", type=Path, required=True)
    one.add_argument("--torch", default="torch")
    one.add_argument("--torch-index", default="")
    other = commands.add_parser("model")
    other.add_argument("embedder", type=_embedder)
    other.add_argument("names", nargs="+", metavar="NAME")
    given = parser.parse_args()
    if given.command == "packages":
        packages(given.embedder, given.folder, given.lock, given.torch, given.torch_index)
    else:
        for name in given.names:
            model(given.embedder, name)


if __name__ == "__main__":
    main()
