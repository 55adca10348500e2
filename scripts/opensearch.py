"""`make opensearch`: a local OpenSearch server in a container, or the one that OPENSEARCH_HOST names.

Prints what to set. Exit code 1 when there is no server, with what would help. `scripts/opensearch.py down` ends the
container; its data stays.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # scripts are not installed

from scripts.local.compose import Compose
from scripts.local.engine import StackError


def main() -> int:
    given = os.environ.get("OPENSEARCH_HOST", "").rstrip("/")
    try:
        if sys.argv[1:] == ["down"]:
            Compose.find().down(data=False)
            return 0
        if given:
            _tell(given)
            return 0
        compose = Compose.find()
        print("starting OpenSearch in a container; the first time its image is fetched (about 1 GB)", flush=True)
        compose.up("opensearch")
        _tell(f"http://127.0.0.1:{os.environ.get('OPENSEARCH_PORT', '9200')}")
    except StackError as exc:
        print(f"opensearch: {exc}; or set OPENSEARCH_HOST to a server that runs already", file=sys.stderr)
        return 1
    print(f"  {compose.shown('down')}      # ends it; its data stays")
    return 0


def _tell(address: str) -> None:
    try:
        with urllib.request.urlopen(address, timeout=10) as reply:  # noqa: S310  (an address that the user gave)
            version = json.load(reply)["version"]
    except (urllib.error.URLError, OSError, ValueError, KeyError) as exc:
        raise StackError(f"{address} does not answer as an OpenSearch server does: {exc}") from exc
    print(f"OpenSearch {version.get('number')} answers at {address}")
    print(f"  OPENSEARCH_HOST={address} KNN_ENGINE=lucene .venv/bin/llamabda serve")
    print(f"  LLAMABDA_TEST_OPENSEARCH={address} make test")


if __name__ == "__main__":
    sys.exit(main())
