"""`llamabda keys ...`"""

from __future__ import annotations

import time
from argparse import Namespace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from llamabda import wiring

if TYPE_CHECKING:
    from llamabda.cli.console import Console

PUBLISHED_AHEAD = 7_200.0  # seconds: gateways read the key set again after two hours at the latest


def rotate(arguments: Namespace, console: Console) -> int:
    """The new key is published at once, and signs once everybody has had time to read it."""
    added = wiring.key_file().rotate(after=0.0 if arguments.now else PUBLISHED_AHEAD)
    if console.json:
        return list_keys(arguments, console)
    when = "now" if arguments.now else f"from {_moment(added.signs_from)} on"
    console.note(f"{added.kid} signs {when}; tokens that the keys before it signed stay good until they expire")
    return 0


def list_keys(_arguments: Namespace, console: Console) -> int:
    signer = wiring.key_file()
    known = signer.keys()
    current = signer.key().kid
    rows = [
        {
            "kid": key.kid,
            "state": "signs" if key.kid == current else "next" if key.signs_from > time.time() else "verifies",
            "signs_from": _moment(key.signs_from) if key.signs_from else None,
        }
        for key in known
    ]
    if console.json:
        console.data({"keys": rows})
    else:
        for row in rows:
            console.result(f"{row['kid']}  {row['state']:<8}  {row['signs_from'] or ''}")
    return 0


def _moment(epoch: float) -> str:
    return f"{datetime.fromtimestamp(epoch, UTC):%Y-%m-%dT%H:%M:%SZ}"
