"""Which embedding model a process works with: the one whose vectors the documents have, until others are made.

The settings name the model that is wanted. Where documents were indexed with another one, that one goes on answering
and taking documents until every document has vectors of the wanted one (`reindex`); then all processes follow.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from llamabda.errors import DependencyFailed, LlamabdaError
from llamabda.ports import Embedder, Embeddings, Indexes
from llamabda.space import Space
from llamabda.types import Embedding, EmbeddingModel

log = logging.getLogger("llamabda.spaces")

RETRY_SECONDS = 10.0  # after a model that should be followed could not be loaded


class Spaces:
    """Holds the space of this process and changes it when the documents' embedding is another one.

    `load` makes an embedder, which takes a while. `clock`: seconds that never go back.
    """

    def __init__(
        self,
        embeddings: Embeddings,
        indexes: Indexes,
        load: Callable[[EmbeddingModel], Embedder],
        wanted: EmbeddingModel,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._embeddings = embeddings
        self._indexes = indexes
        self._load = load
        self._wanted = wanted
        self._clock = clock
        self._space: Space | None = None
        self._lock = threading.Lock()
        self._follower: threading.Thread | None = None
        self._retry_at = 0.0

    def model(self) -> EmbeddingModel:
        """The model to work with: the wanted one, unless documents have vectors of another."""
        live = self._embeddings.live()
        if live is None or live.model == self._wanted or not self._embeddings.unmade("", limit=1):
            return self._wanted
        return live.model

    def load(self) -> Space:
        """Loads the model and opens its index; call it once. ModelError when it cannot be had."""
        model = self.model()
        if model != self._wanted:
            log.warning(
                "EMBED_MODEL_NAME is %s, but the documents were indexed with %s, which goes on answering: "
                "run `llamabda reindex`",
                self._wanted.name,
                model.name,
            )
        space = self._opened(model)
        live = self._embeddings.live()
        known = live is not None and live.fingerprint == space.fingerprint
        if not known and not self._embeddings.adopt(space.embedding):
            log.warning("%s; until then nothing is found", _made_otherwise(model))
        self._space = space
        return space

    def current(self) -> Space:
        """The space to search and to add to now. `load` has been called before.

        DependencyFailed when the model's files are no longer those that made the documents' vectors.
        """
        space = self._space
        if space is None:
            raise AssertionError("load() comes first")
        live = self._embeddings.live()
        if live is None or live.fingerprint == space.fingerprint:
            return space
        if live.model == space.model:
            raise DependencyFailed(_made_otherwise(space.model), dependency="embedder")
        self._follow(live)
        return space

    def _opened(self, model: EmbeddingModel) -> Space:
        embedder = self._load(model)
        return Space(model, embedder, self._indexes.open(embedder.fingerprint, embedder.dim))

    def _follow(self, live: Embedding) -> None:
        """Loads the documents' new model beside the old one, which answers until it is there."""
        with self._lock:
            if self._follower is not None or self._clock() < self._retry_at:
                return
            self._follower = threading.Thread(target=self._change, args=(live,), name="load-embedder", daemon=True)
            self._follower.start()

    def _change(self, live: Embedding) -> None:
        try:
            self._space = self._opened(live.model)
            log.info("the embedding model is now %s", live.model.name)
        except LlamabdaError as exc:
            self._retry_at = self._clock() + RETRY_SECONDS
            log.error("the documents' new embedding model %s cannot be loaded: %s", live.model.name, exc.message)
        finally:
            self._follower = None


def _made_otherwise(model: EmbeddingModel) -> str:
    return f"the documents' vectors were not made by {model.name} as it is now: run `llamabda reindex`"
