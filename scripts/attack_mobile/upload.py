"""Documents into Llamabda, in batches; what is queued there is waited for."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .api import Api, ApiError, Rejected, UsageError
from .documents import DATASET, PREFIX, Document
from .progress import Progress

BATCH = 24  # documents a request: a few seconds' work, so that progress is seen and little is lost by an interruption
POLL_SECONDS = 2.0


@dataclass(slots=True)
class Outcome:
    """What became of the documents, by id."""

    ready: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    queued: list[str] = field(default_factory=list)  # accepted, but not ready yet
    failed: dict[str, str] = field(default_factory=dict)  # with the reason


@dataclass(slots=True)
class Upload:
    api: Api
    progress: Progress
    chunk_size: int | None = None  # None: what the server usually does
    chunk_overlap: int | None = None
    clock: Callable[[], float] = time.monotonic

    def send(self, documents: Sequence[Document]) -> Outcome:
        """Sends all. Raises ApiError, and UsageError when the server does not take the chunking."""
        outcome = Outcome()
        size = BATCH
        waiting = list(documents)
        while waiting:
            batch, rest = waiting[:size], waiting[size:]
            try:
                reply = self.api.train(self._body(batch))
            except Rejected as exc:
                if exc.status == 413 and len(batch) > 1:
                    size = len(batch) // 2
                    self.progress.say(f"a request with {len(batch)} documents is too large: sending {size} at a time")
                    continue
                wrong = self._wrong(batch, exc)
                outcome.failed.update(wrong)
                self.progress.add(len(wrong))
                waiting = [one for one in batch if one.id not in wrong] + rest
                continue
            self._take(reply, batch, outcome)
            self.progress.add(len(batch))
            waiting = rest
        return outcome

    def wait(self, outcome: Outcome, *, seconds: float) -> None:
        """Until what is queued is ready or failed, for this long at most; what is left stays `queued`."""
        until = self.clock() + seconds
        while outcome.queued:
            busy = {
                one.get("id") for state in ("queued", "processing") for one in self.api.documents(state=state)
            }.intersection(outcome.queued)
            for doc_id in [one for one in outcome.queued if one not in busy]:
                found = self.api.document(doc_id) or {"state": "failed", "error": "it was deleted meanwhile"}
                if found.get("state") in ("ready", "failed"):
                    outcome.queued.remove(doc_id)
                    self._sort(doc_id, str(found["state"]), found.get("error"), outcome)
            if not outcome.queued or self.clock() >= until:
                return
            self.progress.say(f"waiting for {len(outcome.queued)} documents that the server works on")
            self.api.pause(POLL_SECONDS)

    def stale(self, current: set[str]) -> list[str]:
        """The ids of documents that an earlier run made and that are not among the current ones."""
        return [
            str(one["id"])
            for one in self.api.documents()
            if str(one.get("id")).startswith(PREFIX)
            and one["id"] not in current
            and isinstance(one.get("metadata"), dict)
            and one["metadata"].get("dataset") == DATASET
        ]

    def _body(self, batch: Sequence[Document]) -> dict[str, Any]:
        docs = [{"id": one.id, "text": one.text, "metadata": dict(one.metadata)} for one in batch]
        chunking = {"chunk_size": self.chunk_size, "chunk_overlap": self.chunk_overlap}
        return {"docs": docs, **{name: value for name, value in chunking.items() if value is not None}}

    def _take(self, reply: dict[str, Any], batch: Sequence[Document], outcome: Outcome) -> None:
        told = reply.get("documents")
        states = {one.get("id"): one for one in told if isinstance(one, dict)} if isinstance(told, list) else {}
        for one in batch:
            if one.id not in states:
                raise ApiError(f"{self.api.base} does not say what became of {one.id}: is this Llamabda?")
            self._sort(one.id, str(states[one.id].get("state")), states[one.id].get("error"), outcome)

    def _sort(self, doc_id: str, state: str, error: object, outcome: Outcome) -> None:
        if state == "failed":
            outcome.failed[doc_id] = str(error or "the server does not say why")
            self.progress.say(f"{doc_id} failed: {outcome.failed[doc_id]}")
        else:
            {"ready": outcome.ready, "unchanged": outcome.unchanged}.get(state, outcome.queued).append(doc_id)

    def _wrong(self, batch: Sequence[Document], rejected: Rejected) -> dict[str, str]:
        """Which documents of a refused batch are to blame."""
        errors = rejected.problem.get("errors")
        found: dict[str, str] = {}
        for error in errors if isinstance(errors, list) else []:
            loc = error.get("loc") if isinstance(error, dict) else None
            match loc:
                case ["body", "docs", int(at), *_] if at < len(batch):
                    found[batch[at].id] = str(error.get("msg"))
                case ["body", "chunk_size" | "chunk_overlap", *_]:
                    raise UsageError(str(rejected)) from rejected
        if not found and len(batch) == 1:
            found[batch[0].id] = str(rejected)
        if not found:
            raise rejected
        for doc_id, why in found.items():
            self.progress.say(f"{doc_id} was refused: {why}")
        return found
