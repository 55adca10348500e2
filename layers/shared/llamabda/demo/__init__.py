"""`llamabda demo`: from nothing to three cited answers, over a real server, as a user would do it."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from llamabda import wiring, wiring_models
from llamabda.demo.client import Client
from llamabda.demo.server import DemoServer
from llamabda.demo.steps import ask_questions, go_on, ingest_samples, sign_in
from llamabda.errors import LlamabdaError, ModelError

if TYPE_CHECKING:
    from llamabda.cli.console import Console

INTRODUCTION = """\
This demo gets the models, starts a server of its own, gives it sample documents of a bicycle repair cooperative
(English and Portuguese), asks three questions and checks every citation. Everything stays in {home}
and in the model cache {cache}. The first run downloads about 180 MB and takes a minute or
two; later runs take seconds and need no network.
"""


def run(home: Path, console: Console) -> int:
    """0 when all three questions are answered and every citation holds. Raises LlamabdaError where something fails."""
    began = time.monotonic()
    console.result(INTRODUCTION.format(home=home, cache=wiring_models.cache_dir() / "models"))
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)  # so that the server is stopped then, too

    step = _Steps(console)
    step("Getting the models")
    wiring.prepare_embedder(console.note, model=wiring.wanted_model())
    try:
        wiring_models.prepare_generator(console.note)
    except ModelError as error:
        console.note(f"no language model, answers will be extracts: {error.message}")

    step("Starting the server")
    with DemoServer(home) as server:
        client = Client(server.url)
        ready = server.wait(client, console.note)
        console.result(f"   {server.url} is ready ({ready}); its log is {server.log}")

        step("Signing in")
        sign_in(client, home, console)
        step("Ingesting the sample documents")
        ingest_samples(client, console)
        step("Asking")
        unanswered, broken = ask_questions(client, console)
        step("Stopping the server")
    console.result(f"   done after {time.monotonic() - began:.1f} s")
    if broken:
        raise LlamabdaError(f"{broken} citations do not hold: their text is not what the source has there")
    if unanswered:
        raise LlamabdaError(f"{unanswered} of the questions got no answer, though the documents hold one")
    go_on(home, console)
    return 0


class _Steps:
    """Numbers what is done."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._number = 0

    def __call__(self, what: str) -> None:
        self._number += 1
        self._console.result(f"{self._number}. {what}")
        self._console.flush()


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
