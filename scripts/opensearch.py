"""`make opensearch`: a local OpenSearch server in a container, or the one that OPENSEARCH_HOST names.

Prints what to set. Exit code 1 when there is no server, with what would help.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMPOSE = ["docker", "compose", "-f", str(ROOT / "docker-compose.local.yml")]


def main() -> int:
    given = os.environ.get("OPENSEARCH_HOST", "").rstrip("/")
    if given:
        return _told(given)
    engine = shutil.which("docker")
    if engine is None or subprocess.run([engine, "info"], capture_output=True, check=False).returncode:
        return _failed("no Docker engine answers: start one, or set OPENSEARCH_HOST to a server that runs already")
    print("starting OpenSearch in a container; the first time its image is fetched (about 1 GB)", flush=True)
    if subprocess.run([*COMPOSE, "up", "--detach", "--wait", "opensearch"], check=False).returncode:
        return _failed("the container did not become healthy: `docker compose -f docker-compose.local.yml logs`")
    return _told(f"http://127.0.0.1:{os.environ.get('OPENSEARCH_PORT', '9200')}")


def _told(address: str) -> int:
    try:
        with urllib.request.urlopen(address, timeout=10) as reply:  # noqa: S310  (an address that the user gave)
            version = json.load(reply)["version"]
    except (urllib.error.URLError, OSError, ValueError, KeyError) as exc:
        return _failed(f"{address} does not answer as an OpenSearch server does: {exc}")
    print(f"OpenSearch {version.get('number')} answers at {address}")
    print(f"  OPENSEARCH_HOST={address} KNN_ENGINE=lucene .venv/bin/llamabda serve")
    print(f"  LLAMABDA_TEST_OPENSEARCH={address} make test")
    return 0


def _failed(why: str) -> int:
    print(f"opensearch: {why}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
