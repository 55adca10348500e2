"""`llamabda reindex`"""

from __future__ import annotations

import time
from argparse import Namespace
from typing import TYPE_CHECKING

from llamabda import wiring

if TYPE_CHECKING:
    from llamabda.cli.console import Console
    from llamabda.reindex import Progress

SOME_FAILED = 1


def reindex(arguments: Namespace, console: Console) -> int:
    """Gives every document vectors of the model that the settings name; 1 when some could not be made."""
    model = wiring.wanted_model()
    wiring.prepare_embedder(console.progress, model=model)
    console.progress(f"loading {model.name}")
    embedder = wiring.load_embedder(model)
    former = wiring.embeddings().live()
    began = time.monotonic()

    def show(progress: Progress) -> None:
        rate = progress.chunks / max(time.monotonic() - began, 1e-3)
        total = progress.documents + progress.left
        console.progress(
            f"{progress.documents} of {total} documents, {progress.chunks} chunks, {rate:.0f} chunks/s; "
            "may be stopped, and goes on where it was"
        )

    done = wiring.reindex()(embedder, model, anew=arguments.anew, progress=show)
    wiring.ingest().sweep()
    wiring.ingest().discard()
    for key, why in done.failed:
        console.note(f"failed: {key.doc_id} of {key.tenant}: {why}")
    if console.json:
        console.data(
            {
                "model": model.name,
                "fingerprint": embedder.fingerprint,
                "documents": done.documents,
                "chunks": done.chunks,
                "failed": [{"tenant": k.tenant, "id": k.doc_id, "error": why} for k, why in done.failed],
                "adopted": done.adopted,
            }
        )
    if not done.adopted:
        console.note(
            f"{len(done.failed)} documents have no vectors of {model.name} yet: the former model goes on answering"
        )
        return SOME_FAILED
    changed = former is not None and former.name != done.build
    console.note(
        f"{done.documents} documents, {done.chunks} chunks, {time.monotonic() - began:.1f} s; "
        f"{model.name} answers now"
        + (
            "; running servers follow within seconds, the former vectors are removed ten minutes later"
            if changed
            else ""
        )
    )
    return 0
