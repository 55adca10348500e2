"""The OpenAPI document of all functions: `python -m llamabda_functions.local.openapi > FILE`."""

from __future__ import annotations

import json
import sys

from .app import app

if __name__ == "__main__":
    sys.stdout.write(json.dumps(app.openapi(), separators=(",", ":"), ensure_ascii=False))
