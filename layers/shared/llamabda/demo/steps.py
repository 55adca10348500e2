"""What the demo does with its server."""

from __future__ import annotations

import os
import secrets
import time
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from llamabda import wiring
from llamabda.demo.client import Client, Refused
from llamabda.errors import DependencyFailed

if TYPE_CHECKING:
    from llamabda.cli.console import Console

USERNAME = "demo"
PASSWORD_FILE = "password"  # noqa: S105  (the name of a file)
INGEST_SECONDS = 300.0  # for one sample, beside whatever else this machine does
POLL_SECONDS = 0.2
SAMPLES = (
    "member-handbook.md",
    "price-list.html",
    "history.txt",
    "parts-supply.txt",
    "perguntas-frequentes.md",
    "garantia.pdf",
)
QUESTIONS = (
    "How much is the deposit for a torque wrench?",
    "When was the Roda Livre cooperative founded?",
    "Qual é a garantia do serviço para sócios e para visitantes?",  # the answer stands in the PDF
)
SHOWN_CHARS = 240  # of a cited passage

GO_ON = """\

Go on with these documents:

  llamabda serve --home {home}
  TOKEN=$(curl -s http://127.0.0.1:8000/auth/login -H 'Content-Type: application/json' \\
    -d "{{\\"username\\":\\"{user}\\",\\"password\\":\\"$(cat {password})\\"}}" \\
    | sed 's/.*"access_token":"\\([^"]*\\)".*/\\1/')
  curl http://127.0.0.1:8000/ask/question -H "Authorization: Bearer $TOKEN" \\
    -H 'Content-Type: application/json' -d '{{"question":"Where was the first toolbox from?"}}'

or with your own:

  llamabda ingest YOUR-FOLDER          (or a file: text, Markdown, HTML, PDF)
  llamabda ask "YOUR QUESTION"
  make serve                           (or: llamabda serve)
"""


def sign_in(client: Client, home: Path, console: Console) -> None:
    """Registers on the first run, logs in on every run."""
    password = _password(home / PASSWORD_FILE)
    credentials = {"username": USERNAME, "password": password}
    try:
        client.post("/auth/register", credentials)
        console.result(f"   registered {USERNAME!r}; the password is in {home / PASSWORD_FILE}")
    except Refused as refused:
        if refused.status != 409:
            raise _failed("registering", refused) from refused
        console.result(f"   {USERNAME!r} is registered already")
    try:
        client.token = client.post("/auth/login", credentials)["access_token"]
    except Refused as refused:
        hint = f"; remove {home} to start afresh" if refused.status == 401 else ""
        raise _failed("logging in", refused, hint) from refused
    console.result("   logged in")


def ingest_samples(client: Client, console: Console) -> None:
    """The texts of the files are extracted here, as `llamabda ingest` does, and sent to POST /training/train."""
    folder = files("llamabda") / "samples"
    console.result("   the text of each file is extracted here and sent to POST /training/train")
    for name in SAMPLES:
        began = time.perf_counter()
        text = wiring.extractor().extract((folder / name).read_bytes(), name=name)
        body = {"docs": [{"id": name, "text": text, "metadata": {"filename": name}}]}
        try:
            result = client.post("/training/train", body)["documents"][0]
            while result["state"] in ("queued", "processing") and time.perf_counter() - began < INGEST_SECONDS:
                console.progress(f"{name} is {result['state']}")
                time.sleep(POLL_SECONDS)
                result = client.get(f"/documents/{name}")
        except Refused as refused:
            raise _failed(f"ingesting {name}", refused) from refused
        if result["state"] not in ("ready", "unchanged"):
            why = result["error"] or f"it is still {result['state']} after {INGEST_SECONDS:.0f} s"
            raise DependencyFailed(f"{name} could not be ingested: {why}", dependency="server")
        took = 1000 * (time.perf_counter() - began)
        was_there = "  unchanged" if result["state"] == "unchanged" else ""
        console.result(
            f"   {name:<24} {len(text):>5} characters  {result['chunks']:>2} chunks  {took:>5.0f} ms{was_there}"
        )


def ask_questions(client: Client, console: Console) -> tuple[int, int]:
    """How many questions were not answered, and how many citations did not hold."""
    unanswered = broken = 0
    for question in QUESTIONS:
        console.result(f"\n   {question}")
        try:
            reply = client.post("/ask/question", {"question": question})
        except Refused as refused:
            raise _failed("asking", refused) from refused
        console.quote(reply["answer"], indent="   > ")
        unanswered += not (reply["answered"] and reply["citations"])
        for citation in reply["citations"]:
            holds = _holds(client, citation)
            broken += not holds
            span = f"characters {citation['start']} to {citation['end']}"
            said = "verified" if holds else "NOT WHAT THE SOURCE SAYS"
            console.result(f"   [{citation['n']}] {citation['doc_id']}, {span}, {said}:")
            console.quote(_shortened(citation["text"]), indent="       ")
        timings = ", ".join(f"{stage} {ms:.0f}" for stage, ms in reply["timings"].items())
        console.result(f"   {reply['mode']}; milliseconds: {timings}")
        console.flush()
    return unanswered, broken


def _holds(client: Client, citation: dict[str, Any]) -> bool:
    """Whether the source has, at that place, what is cited."""
    query = urlencode({"doc_id": citation["doc_id"], "generation": citation["generation"]})
    source = client.text(f"/source?{query}")
    return bool(citation["text"]) and source[citation["start"] : citation["end"]] == citation["text"]


def _shortened(text: str) -> str:
    """The beginning of a passage, at a word's end."""
    text = " ".join(text.split())
    return text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS].rpartition(" ")[0] + " ..."


def go_on(home: Path, console: Console) -> None:
    console.result(GO_ON.format(home=home, user=USERNAME, password=home / PASSWORD_FILE))


def _password(file: Path) -> str:
    """Made at the first run, readable by its owner only."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return file.read_text("utf-8").strip()
    password = secrets.token_urlsafe(18)
    with os.fdopen(descriptor, "w", encoding="utf-8") as target:
        target.write(password)
    return password


def _failed(doing: str, refused: Refused, hint: str = "") -> DependencyFailed:
    return DependencyFailed(
        f"{doing} failed with HTTP {refused.status}: {refused.detail[:500]}{hint}", dependency="server"
    )
