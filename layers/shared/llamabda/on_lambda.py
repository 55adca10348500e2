"""How a function begins on Lambda. Part of the composition root."""

from __future__ import annotations

import logging

from llamabda import logs, wiring
from llamabda.errors import ConfigurationError
from llamabda.settings import obsolete, settings

log = logging.getLogger("llamabda")

NEEDED = {
    "auth": ("USERS_TABLE", "KMS_KEY_ID"),
    "ingest": (
        *("USERS_TABLE", "CATALOG_TABLE", "TEXT_BUCKET", "BUCKET", "QUEUE_URL", "DEAD_LETTER_URL"),
        *("JWKS_URL", "OPENSEARCH_HOST"),
    ),
    "ask": ("USERS_TABLE", "CATALOG_TABLE", "JWKS_URL", "OPENSEARCH_HOST"),
}


def begin(function: str) -> None:
    """Before the first request. Models begin to load in the background: initialising has no more than ten seconds.

    ConfigurationError that names every setting which the function cannot do without, and lacks.
    """
    logs.configure(settings().log_format, debug=settings().debug)
    missing = [name for name in NEEDED[function] if not getattr(settings(), name.lower())]
    if missing:
        raise ConfigurationError(
            f"{', '.join(missing)} must be set: on Lambda nothing lasts that is kept in files, as it is elsewhere"
        )
    for warning in obsolete():
        log.warning("%s", warning)
    if function != "auth":
        wiring.warm()
