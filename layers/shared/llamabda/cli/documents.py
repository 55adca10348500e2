"""`llamabda ingest` and `llamabda docs ...`"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from llamabda import rendering, wiring
from llamabda.chunking import Chunking
from llamabda.cli.console import Console
from llamabda.cli.files import Found, find
from llamabda.cli.start import checked_tenant, load_embedder
from llamabda.cli.training import Training
from llamabda.errors import NotFound

SOME_FAILED = 1
NOT_FOUND = 3


def ingest(arguments: Namespace, console: Console) -> int:
    """1 when a file could not be taken; the others are."""
    tenant = checked_tenant(arguments.tenant)
    chunking = Chunking(size=arguments.chunk_size, overlap=arguments.chunk_overlap)
    found = find([Path(path).expanduser() for path in arguments.paths])
    _mention_skipped(found, console)
    if not found.files:
        raise NotFound("there is nothing to ingest: no readable files in what was named")
    console.progress(f"{len(found.files)} files")
    load_embedder(console)
    training = Training(tenant, chunking, total=len(found.files), console=console)
    try:
        for file in found.files:
            training.add(file)
        training.finish()
    finally:
        training.report()
    if console.json:
        console.data(rendering.trained(training.results, training.notices))
    return SOME_FAILED if training.failed else 0


def _mention_skipped(found: Found, console: Console) -> None:
    shown = 20
    for path in found.skipped[:shown]:
        console.note(f"skipped, not a document: {path}")
    if len(found.skipped) > shown:
        console.note(f"skipped, not documents: {len(found.skipped) - shown} more")


def list_documents(arguments: Namespace, console: Console) -> int:
    tenant = checked_tenant(arguments.tenant)
    page = wiring.catalog().list(tenant, state=arguments.state, limit=arguments.limit, cursor=arguments.cursor)
    if console.json:
        console.data(rendering.documents(page))
        return 0
    width = max((len(document.id) for document in page.documents), default=0)
    for document in page.documents:
        console.result(
            f"{document.id:<{width}}  {document.state:<10}  {document.chunks:>6} chunks  {document.bytes:>10,} bytes  "
            f"{document.updated_at:%Y-%m-%d %H:%M}" + (f"  {document.error}" if document.error else "")
        )
    console.note(", ".join(f"{count} {state}" for state, count in page.counts.items() if count) or "no documents yet")
    if page.next_cursor:
        console.note(f"more: --cursor {page.next_cursor}")
    return 0


def show(arguments: Namespace, console: Console) -> int:
    tenant = checked_tenant(arguments.tenant)
    if arguments.text:
        text, _ = wiring.ingest().source((tenant,), arguments.id, None)
        console.result(text)
        return 0
    document = rendering.document(wiring.ingest().document((tenant,), arguments.id))
    if console.json:
        console.data(document)
        return 0
    for name, value in document.items():
        if value not in (None, {}):
            console.result(f"{name:<10}  {value}")
    return 0


def remove(arguments: Namespace, console: Console) -> int:
    """3 when one of them is not there; the others go."""
    tenant = checked_tenant(arguments.tenant)
    missing = 0
    for doc_id in arguments.ids:
        try:
            wiring.ingest().delete(tenant, doc_id)
            console.note(f"removed {doc_id}")
        except NotFound as error:
            missing += 1
            console.failure(error)
    return NOT_FOUND if missing else 0
