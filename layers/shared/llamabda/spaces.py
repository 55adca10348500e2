"""Which embedding model a process works with: the one whose vectors the documents have, until others are made.

The settings name the model that is wanted. Where documents were indexed with another one, that one goes on answering
and taking documents until every document has vectors of the wanted one (`reindex`); then all processes follow.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from llamabda.errors import DependencyFailed, LlamabdaError, ModelError
from llamabda.ports import Embedder, Embeddings, Indexes
from llamabda.space import Space
from llamabda.types import Build, Embedding, EmbeddingModel

log = logging.getLogger("llamabda.spaces")

RETRY_SECONDS = 10.0  # after a model that should be followed could not be loaded
LOOK_SECONDS = 2.0  # after an index that could not be looked at


class Spaces:
    """Holds the space of this process and changes it when readers are to search other vectors.

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
        self._trouble = "the embedding model is not loaded yet"
        self._lock = threading.Lock()
        self._following = False
        self._retry_at = 0.0
        self._seen: set[str] = set()  # builds whose indexes were looked at
        self._unseen = "the index was not looked at yet"
        self._looking = False
        self._look_at = 0.0

    def model(self) -> EmbeddingModel:
        """The model to work with: the wanted one, unless documents have vectors of another."""
        live = self._embeddings.live()
        if live is None or not live.embedding.model.name or not self._embeddings.documents():
            return self._wanted
        return live.embedding.model

    def load(self) -> None:
        """Loads the model and opens its index, so that `current` can give them. ModelError when it cannot be had."""
        model, embedder = self._loaded()
        live = self._embeddings.settle(Embedding(embedder.fingerprint, model))
        if live is None:
            raise AssertionError("what is settled is live")
        if live.embedding.fingerprint == embedder.fingerprint:
            self._space = self._opened(live, embedder)
            return
        # its files have changed, or readers changed over while it was loaded: then it is followed
        self._trouble = _made_otherwise(model)
        if live.embedding.model == model or not live.embedding.model.name:
            log.warning("%s", self._trouble)

    def current(self) -> Space:
        """The space to search now: the former one while a new one is loaded. `load` has been called before.

        DependencyFailed when there is none that this process can search.
        """
        live = self._embeddings.live()
        space = self._space
        if live is not None and (space is None or live.name != space.build):
            self._follow(live)
            if space is not None and space.build not in self._embeddings.names():
                space = None  # its index has been removed meanwhile
        if space is None:
            raise DependencyFailed(self._trouble, dependency="embedder")
        if space.build not in self._seen:
            self._look_again(space)
            raise DependencyFailed(self._unseen, dependency="index")
        return space

    def writable(self) -> Space:
        """The space to add to now. DependencyFailed, too, while this process still follows to it."""
        space = self.current()
        live = self._embeddings.live()
        if live is not None and live.name != space.build:
            raise DependencyFailed(
                f"the embedding model changes to {live.embedding.model.name}: {self._trouble}", dependency="embedder"
            )
        return space

    def _loaded(self) -> tuple[EmbeddingModel, Embedder]:
        model = self.model()
        if model == self._wanted:
            return model, self._load(model)
        try:
            embedder = self._load(model)
        except ModelError as exc:
            # the same files may be there under the new name
            embedder, live = self._load(self._wanted), self._embeddings.live()
            if live is None or embedder.fingerprint != live.embedding.fingerprint:
                raise ModelError(
                    f"the documents were indexed with {_shown(model)}, which cannot be had ({exc.message}): "
                    "run `llamabda reindex`"
                ) from exc
            return self._wanted, embedder
        log.warning(
            "the settings name the embedding model %s, but the documents were indexed with %s, which goes on "
            "answering: run `llamabda reindex`",
            _shown(self._wanted),
            _shown(model),
        )
        return model, embedder

    def _opened(self, live: Build, embedder: Embedder) -> Space:
        self._look(live.name, embedder.dim)
        return Space(live.name, embedder, self._indexes.open(live.name, embedder.dim))

    def _look(self, build: str, dim: int) -> None:
        """Whether the index is there, and has what it should have, before anybody searches it."""
        embeddings, indexes = self._embeddings, self._indexes
        try:
            if embeddings.moved(indexes.place):
                log.error("the documents were indexed elsewhere: run `llamabda reindex`, until then nothing is found")
            elif embeddings.left(build) < embeddings.documents() and not indexes.there(build):
                embeddings.lost(build)
                log.error("the index %s is gone: run `llamabda reindex`, until then nothing is found", build)
            indexes.make(build, dim)
            indexes.publish(build)
            self._seen.add(build)
        except DependencyFailed as exc:
            if exc.message != self._unseen:
                log.warning("the index cannot be looked at now: %s", exc.message)
            self._unseen = exc.message

    def _look_again(self, space: Space) -> None:
        """Beside whoever asks: they do not wait for an index that is away."""
        with self._lock:
            if self._looking or self._clock() < self._look_at:
                return
            self._looking = True

        def look() -> None:
            try:
                self._look(space.build, space.embedder.dim)
            finally:
                self._look_at = self._clock() + LOOK_SECONDS
                self._looking = False

        threading.Thread(target=look, name="look-at-index", daemon=True).start()

    def _follow(self, live: Build) -> None:
        """Loads the model of the vectors that readers search now beside the former one, which answers meanwhile."""
        with self._lock:
            here = self._space is not None and self._space.build == live.name
            unknown = not live.embedding.model.name  # of an index from before names were kept
            if here or unknown or self._following or self._clock() < self._retry_at:
                return
            self._following = True
        threading.Thread(target=self._change, args=(live,), name="load-embedder", daemon=True).start()

    def _change(self, live: Build) -> None:
        model = live.embedding.model
        try:
            embedder = self._load(model)
            if embedder.fingerprint != live.embedding.fingerprint:
                raise ModelError(_made_otherwise(model))
            self._space = self._opened(live, embedder)
            log.info("the embedding model is now %s", _shown(model))
        except LlamabdaError as exc:
            self._failed(exc.message)
        except Exception as exc:
            self._failed(repr(exc))  # the border of the thread: a defect must not end the trying
            raise
        finally:
            self._following = False

    def _failed(self, why: str) -> None:
        self._retry_at = self._clock() + RETRY_SECONDS
        if why != self._trouble:
            log.error("the documents' embedding model cannot be loaded: %s", why)
        self._trouble = why


def _made_otherwise(model: EmbeddingModel) -> str:
    return f"the documents' vectors were not made by {_shown(model)} as it is now: run `llamabda reindex`"


def _shown(model: EmbeddingModel) -> str:
    return model.name if model.backend == "onnx" else f"{model.name} ({model.backend})"
