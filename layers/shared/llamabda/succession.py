"""Which version of a document may follow which, and how long one that is still to be made is waited for. Pure.

Every catalog keeps these rules.
"""

from __future__ import annotations

from datetime import timedelta

QUEUED = timedelta(days=15)  # longer than any queue keeps its messages
INTERRUPTED = "the ingestion was interrupted; send the document again"


def behind(sequencer: str | None, known: str | None) -> bool:
    """Whether a write with this sequencer comes too late for a document that carries `known`."""
    if sequencer is None or known is None:
        return False
    width = max(len(sequencer), len(known))
    return sequencer.ljust(width, "0") < known.ljust(width, "0")


def may_go_live(
    generation: int, sequencer: str | None, *, live: int | None, deleted_upto: int, known: str | None
) -> bool:
    """Where both carry a sequencer, the source's order counts; otherwise the order in which ingestions began.

    `live`: the document's live generation; `deleted_upto`: the last one that was begun before its last delete; `known`:
    the sequencer that it carries.
    """
    if sequencer is not None and known is not None:
        return not behind(sequencer, known)
    return generation > max(deleted_upto, live or 0)
