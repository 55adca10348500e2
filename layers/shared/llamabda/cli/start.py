"""What commands need before they can work: settings that make sense, a tenant, loaded models."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from pydantic import ValidationError

from llamabda.errors import ConfigurationError, InvalidInput, LlamabdaError, ModelError
from llamabda.settings import HIDDEN, Settings, settings
from llamabda.types import SHARED_TENANT

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from llamabda.cli.console import Console

POLL_SECONDS = 0.05


def checked_settings() -> Settings:
    """The settings; ConfigurationError in a user's words where one is wrong."""
    try:
        return settings()
    except ValidationError as exc:
        said = "; ".join(
            f"{'.'.join(map(str, entry['loc'])).upper()}{_shown(entry)}: {entry['msg']}" for entry in exc.errors()
        )
        # the cause's text has no values, but the cause itself has
        raise ConfigurationError(f"a setting is wrong: {said}") from None


def _shown(entry: ErrorDetails) -> str:
    hidden = HIDDEN.intersection(map(str, entry["loc"]))
    return "" if hidden else f"={str(entry['input'])[:100]!r}"


def make_home() -> None:
    """The folder that everything is kept in. ConfigurationError when it cannot be made."""
    home = settings().home_dir
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as exc:
        message = f"LLAMABDA_HOME is {home}, which cannot be made: {exc.strerror}; name a folder that you may write to"
        raise ConfigurationError(message) from exc


def checked_tenant(tenant: str) -> str:
    """A tenant's name as given. InvalidInput when nobody can have it."""
    from llamabda.tokens import TENANT

    if tenant != SHARED_TENANT and not TENANT.fullmatch(tenant):
        raise InvalidInput(
            f"tenant {tenant[:100]!r}: 'shared', or the one that `llamabda users list` shows ('t_' and 26 characters)",
            loc=("tenant",),
            value=tenant,
        )
    return tenant


def readable(tenant: str) -> tuple[str, ...]:
    """What somebody of this tenant may read."""
    return (tenant,) if tenant == SHARED_TENANT else (tenant, SHARED_TENANT)


def load_embedder(console: Console) -> None:
    """Waits until the embedding model is there, fetching it at first use."""
    from llamabda import wiring

    wiring.prepare_embedder(console.progress)
    wait_for(wiring.checks()["embedder"], "loading the embedding model", console)


def load_generator(console: Console) -> None:
    """Waits until the language model is there. Where it cannot be had, answers are extracts, and a note says why."""
    from llamabda import wiring, wiring_models

    if settings().generator_url:
        try:
            wiring.checks()["generator"]()
        except LlamabdaError as error:
            console.note(f"answers are extracts until the language model's server can be used: {error.message}")
        return
    if not settings().model_path:
        return
    try:
        wiring_models.prepare_generator(console.progress)
        wait_for(wiring.checks()["generator"], "loading the language model", console)
    except (ModelError, LlamabdaError) as error:
        console.note(f"answers will be extracts, without a language model: {error.message}")


def load_reranker(console: Console) -> None:
    """Waits until the reranker is there, if one is configured. Where it cannot be had, hits stay as they were found."""
    from llamabda import wiring, wiring_models

    if not settings().rerank_model:
        return
    try:
        wiring_models.prepare_reranker(console.progress)
        wait_for(wiring.checks()["reranker"], "loading the reranker", console)
    except LlamabdaError as error:
        console.note(f"hits stay in the order of the search, without a reranker: {error.message}")


def wait_for(check: Callable[[], str], doing: str, console: Console) -> None:
    """Until a readiness check says something else than "loading". Raises what the check raises."""
    began = time.monotonic()
    while check() == "loading":
        if time.monotonic() - began > 1:
            console.progress(f"{doing} ({time.monotonic() - began:.0f} s)")
        time.sleep(POLL_SECONDS)
