"""Takes out of an image's packages what no function uses: `python slim.py FOLDER`, the folder that pip installed into.

Tests, type stubs, headers, botocore's descriptions of all services but the few that are called, and packages that
others ask for and do without here: gRPC (opensearch-py's other transport), the model hub's client (tokenizers can
download, which no function does), and onnxruntime's second copy of itself for programs in C.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

SERVICES = frozenset(("dynamodb", "kms", "s3", "sqs", "sso", "sso-oidc", "sts"))  # the last three: credentials
FOLDERS = frozenset(("tests", "test", "testing", "include"))
KEPT = frozenset(("numpy/testing", "numpy/_core/tests"))  # imported by numpy itself
SUFFIXES = frozenset((".pyi", ".pxd", ".h", ".hpp", ".c", ".cpp", ".a"))
UNUSED = (
    *("grpc", "grpcio-*", "opensearch", "opensearch_protobufs*"),
    *("filelock*", "fsspec*", "hf_xet*", "httpcore2*", "httpx2*", "huggingface_hub*", "tqdm*", "truststore*"),
    *("yaml", "_yaml", "pyyaml-*"),
    *(f"onnxruntime/{name}" for name in ("datasets", "quantization", "tools", "transformers")),
    "onnxruntime/capi/libonnxruntime.so.*",
    "boto3/examples",
    "bin",
)


def slim(packages: Path) -> int:
    """Bytes that went."""
    before = _size(packages)
    for pattern in UNUSED:
        for path in packages.glob(pattern):
            _remove(path)
    for service in (packages / "botocore" / "data").glob("*/"):
        if service.name not in SERVICES:
            shutil.rmtree(service)
    for path in sorted(packages.rglob("*")):
        place = path.relative_to(packages).as_posix()
        if (path.is_dir() and path.name in FOLDERS and place not in KEPT) or (
            path.suffix in SUFFIXES and path.is_file()
        ):
            _remove(path)
    return before - _size(packages)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    print(f"{slim(Path(sys.argv[1])) / 1e6:.1f} MB taken out of {sys.argv[1]}")
