"""`make opensearch`: a local OpenSearch server in a container, or the one that OPENSEARCH_HOST names.

Prints what to set. Exit code 1 when there is no server, with what would help.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILE = "docker-compose.local.yml"
SECONDS = 180  # from a started container to a server that answers


def main() -> int:
    given = os.environ.get("OPENSEARCH_HOST", "").rstrip("/")
    if given:
        return _told(given)
    if not _works(["docker", "info"]):
        return _failed("no Docker engine answers: start one, or set OPENSEARCH_HOST to a server that runs already")
    commands = (["docker", "compose"], ["docker-compose"])
    compose = next((one for one in commands if _works([*one, "version"])), None)
    if compose is None:
        return _failed("neither `docker compose` nor `docker-compose` is there: install one of them")
    compose += ["-f", str(ROOT / FILE)]
    print("starting OpenSearch in a container; the first time its image is fetched (about 1 GB)", flush=True)
    if subprocess.run([*compose, "up", "--detach", "opensearch"], check=False).returncode:
        return _failed("the container did not start")
    print(f"waiting until it is healthy, up to {SECONDS} s", flush=True)
    if not _healthy(subprocess.run([*compose, "ps", "-q", "opensearch"], capture_output=True, text=True, check=True)):
        return _failed(f"the container did not become healthy: `{shlex.join(compose)} logs` tells why")
    code = _told(f"http://127.0.0.1:{os.environ.get('OPENSEARCH_PORT', '9200')}")
    print(f"  {' '.join([*compose[:-1], FILE])} down      # ends it; its data stays")
    return code


def _works(command: list[str]) -> bool:
    return (
        shutil.which(command[0]) is not None
        and not subprocess.run(command, capture_output=True, check=False).returncode
    )


def _healthy(listed: subprocess.CompletedProcess[str]) -> bool:
    """Waits for the container's own health check; False when it ends before, or takes too long."""
    asked = ["docker", "inspect", "--format", "{{.State.Running}} {{.State.Health.Status}}", listed.stdout.strip()]
    latest = time.monotonic() + SECONDS
    while time.monotonic() < latest:
        told = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split()
        if told == ["true", "healthy"]:
            return True
        if told[:1] != ["true"]:
            return False
        time.sleep(1)
    return False


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
