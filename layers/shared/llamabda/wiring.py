"""The composition root: which adapter stands behind which port, decided by the settings that are present.

Every provider builds its part once, at first use. Importing this module builds nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from llamabda import time_left, wiring_aws, wiring_models
from llamabda.adapters.sqlite.database import Database
from llamabda.background import Background, Once
from llamabda.errors import ConfigurationError, DependencyFailed, LlamabdaError
from llamabda.settings import settings, unsafe
from llamabda.types import EmbeddingModel
from llamabda.wiring_aws import required_on_lambda

if TYPE_CHECKING:
    from llamabda.accounts import Accounts
    from llamabda.adapters.key_file import KeyFileSigner
    from llamabda.adapters.kms import KmsSigner
    from llamabda.adapters.openai import OpenAiGenerator
    from llamabda.adapters.prometheus import PrometheusMetrics
    from llamabda.admission import Admission
    from llamabda.ask import Ask
    from llamabda.auth import Auth
    from llamabda.deliveries import Deliveries
    from llamabda.ingest import Ingest
    from llamabda.language_check import LanguageCheck
    from llamabda.ports import (
        AttemptStore,
        Catalog,
        Embedder,
        Embeddings,
        Extractor,
        Generator,
        Indexes,
        LanguageDetector,
        Metrics,
        Queue,
        Reranker,
        SessionStore,
        Signer,
        TextStore,
        UserStore,
        WorkerQueue,
    )
    from llamabda.rate_limits import Buckets
    from llamabda.receipts import Receipts
    from llamabda.reindex import Reindex
    from llamabda.search import Search
    from llamabda.space import Space
    from llamabda.spaces import Spaces
    from llamabda.tokens import TokenVerifier
    from llamabda.worker import Worker

log = logging.getLogger("llamabda")

LEEWAY = 60  # seconds that a key stays published beyond the life of the tokens that it signed

ACCEPTED_AT_ONCE = 10  # documents, where stores are services: each of them is asked several times
READY_SECONDS = 1.0  # that a check of readiness waits for a server: who asks gives up soon
EMBEDDER_RETRY_SECONDS = 30.0  # after which a model that could not be loaded is asked for again
EMBEDDER_WAIT_SECONDS = (
    20.0  # within the default deadline, so that the caller gets a clean 503 and not a cut connection
)


@Once
def database() -> Database:
    return Database(settings().home_dir / "llamabda.db")


@Once
def users() -> UserStore:
    if settings().users_table:
        return wiring_aws.users()
    required_on_lambda("USERS_TABLE")
    from llamabda.adapters.sqlite.users import SqliteUserStore

    return SqliteUserStore(database())


@Once
def sessions() -> SessionStore:
    if settings().users_table:
        return wiring_aws.sessions()
    required_on_lambda("USERS_TABLE")
    from llamabda.adapters.sqlite.sessions import SqliteSessionStore

    return SqliteSessionStore(database())


@Once
def attempts() -> AttemptStore:
    if settings().users_table:
        return wiring_aws.attempts()
    required_on_lambda("USERS_TABLE")
    from llamabda.adapters.sqlite.attempts import SqliteAttemptStore

    return SqliteAttemptStore(database())


@Once
def catalog() -> Catalog:
    if settings().catalog_table:
        return wiring_aws.catalog()
    required_on_lambda("CATALOG_TABLE")
    from llamabda.adapters.sqlite.catalog import SqliteCatalog

    return SqliteCatalog(database())


@Once
def texts() -> TextStore:
    if settings().text_bucket:
        return wiring_aws.texts()
    required_on_lambda("TEXT_BUCKET")
    from llamabda.adapters.sqlite.texts import SqliteTextStore

    return SqliteTextStore(database())


@Once
def worker_queue() -> WorkerQueue:
    """What the worker of this process takes from."""
    required_on_lambda("QUEUE_URL")
    from llamabda.adapters.sqlite.queue import SqliteQueue

    return SqliteQueue(database())


@Once
def queue() -> Queue:
    """Where work is put."""
    if settings().queue_url:
        return wiring_aws.queue()
    return worker_queue()


@Once
def embeddings() -> Embeddings:
    if settings().catalog_table:
        return wiring_aws.embeddings()
    required_on_lambda("CATALOG_TABLE")
    from llamabda.adapters.sqlite.embeddings import SqliteEmbeddings

    catalog()  # whose tables it shares
    return SqliteEmbeddings(database())


@Once
def indexes() -> Indexes:
    if settings().opensearch_host:
        from llamabda.wiring_index import opensearch_indexes

        return opensearch_indexes(settings(), owner=embeddings().owner())
    required_on_lambda("OPENSEARCH_HOST")
    from llamabda.adapters.sqlite.indexes import SqliteIndexes

    return SqliteIndexes(settings().home_dir / "index")


def wanted_model() -> EmbeddingModel:
    """The embedding model that the settings name."""
    return EmbeddingModel(settings().embed_model_name, settings().embed_backend)


def load_embedder(model: EmbeddingModel) -> Embedder:
    """Takes seconds, and longer where the model has to be fetched first."""
    return wiring_models.load_embedder(model)


@Once
def spaces() -> Spaces:
    from llamabda.spaces import Spaces

    return Spaces(embeddings(), indexes(), load_embedder, wanted_model())


@Once
def key_file() -> KeyFileSigner:
    from llamabda.adapters.key_file import KeyFileSigner

    if settings().kms_key_id:
        raise ConfigurationError(
            "the signing keys are in KMS, not in a file: to change them, add the new key's id at the end of "
            "KMS_KEY_ID, and two hours later put it first"
        )
    required_on_lambda("KMS_KEY_ID")
    return KeyFileSigner(settings().key_file, keep=settings().access_token_expire_minutes * 60 + LEEWAY)


@Once
def kms_signer() -> KmsSigner:
    return wiring_aws.signer()


def signer() -> Signer:
    return kms_signer() if settings().kms_key_id else key_file()


@Once
def auth() -> Auth:
    from llamabda.adapters.argon2 import Argon2Hasher
    from llamabda.auth import Auth, Limits

    return Auth(
        users=users(),
        sessions=sessions(),
        attempts=attempts(),
        signer=signer(),
        hasher=Argon2Hasher(),
        issuer=settings().token_issuer,
        audience=settings().token_audience,
        lifetime=settings().access_token_expire_minutes * 60,
        refresh_lifetime=settings().refresh_token_expire_days * 86_400,
        registration=settings().registration,
        limits=Limits(account=settings().login_guesses_account, address=settings().login_guesses_address),
    )


@Once
def verifier() -> TokenVerifier:
    from llamabda.tokens import TokenVerifier

    if settings().jwks_url:
        source, refetch = wiring_aws.jwks()
    else:
        if not settings().kms_key_id:
            required_on_lambda("JWKS_URL", "KMS_KEY_ID")
        # keys that are in a file here, or known since they were first asked for: looking again costs nothing
        source, refetch = signer().public_jwks, 0.0
    return TokenVerifier(source, settings().token_issuer, settings().token_audience, refetch=refetch)


@Once
def accounts() -> Accounts:
    from llamabda.accounts import Accounts

    return Accounts(users())


def prepare_embedder(
    progress: Callable[[str], None] | None = None, *, offline: bool = False, model: EmbeddingModel | None = None
) -> Path:
    """The folder of an embedding model, fetched and prepared when it is not there yet.

    `model`: the one that this process works with, when none is named.
    """
    return wiring_models.fetch_embedder(model or spaces().model(), progress, offline=offline)


def _loaded_spaces() -> Spaces:
    found = spaces()
    found.load()
    return found


_space = Background(_loaded_spaces, name="embedder", retry=EMBEDDER_RETRY_SECONDS)
_generator = Background(wiring_models.load_generator, name="generator")
_reranker = Background(wiring_models.load_reranker, name="reranker")


def space() -> Space:
    """Waits for the model. Raises DependencyFailed when that takes too long (it may still be downloading)."""
    if _space.wait(time_left.at_most(EMBEDDER_WAIT_SECONDS)) is None:
        raise DependencyFailed(
            "the embedding model is still being fetched or loaded; try again soon", dependency="embedder"
        )
    return spaces().current()


def writable_space() -> Space:
    """The same, for whoever adds to it."""
    space()
    return spaces().writable()


@Once
def remote_generator() -> OpenAiGenerator | None:
    """The server of GENERATOR_URL, there or not; None when none is configured."""
    from llamabda.adapters.openai import OpenAiGenerator

    endpoint = settings().generator_endpoint
    if endpoint is None:
        return None
    return OpenAiGenerator(
        endpoint,
        model=settings().generator_model,
        api_key=settings().generator_api_key.get_secret_value(),
        n_ctx=settings().n_ctx,
        max_queue=settings().max_queue,
    )


def generator() -> Generator | None:
    """The language model; None while it loads, when none is configured, and when it failed to load (see `checks`)."""
    remote = remote_generator()
    if remote is not None:
        return remote
    if not settings().model_path:
        return None
    _generator.start()
    try:
        return _generator.peek()
    except LlamabdaError:
        return None  # answers stay extractive; readiness and the log name the cause


def reranker() -> Reranker | None:
    """What orders hits anew; None while it loads, when none is configured, and when it failed (see `checks`)."""
    if not settings().rerank_model:
        return None
    _reranker.start()
    try:
        return _reranker.peek()
    except LlamabdaError:
        return None  # hits stay in the order of the fusion; readiness and the log name the cause


def warm() -> None:
    """Starts loading the models in the background."""
    for warning in unsafe():
        log.warning("%s", warning)
    _space.start()
    if settings().model_path and not settings().generator_url:
        _generator.start()
    if settings().rerank_model:
        _reranker.start()
    threading.Thread(target=_report, name="warm", daemon=True).start()


def _report() -> None:
    remote = remote_generator()
    try:
        if remote is not None:
            log.info("the language model's server is %s: %s", remote.check(), remote.name)
    except LlamabdaError as exc:
        log.warning("answers are extracts until the language model's server can be used: %s", exc.message)
    wanted: dict[str, Callable[[], object]] = {"embedder": _space.wait}
    if settings().model_path and remote is None:
        wanted["generator"] = _generator.wait
    if settings().rerank_model:
        wanted["reranker"] = _reranker.wait
    for name, loaded in wanted.items():
        try:
            loaded()
        except LlamabdaError as exc:
            log.error("the %s could not be loaded: %s", name, exc.message)


@Once
def ingest() -> Ingest:
    from llamabda.ingest import Ingest

    return Ingest(
        catalog=catalog(),
        space=space,
        writable=writable_space,
        texts=texts(),
        queue=queue(),
        indexes=indexes(),
        embeddings=embeddings(),
        at_once=ACCEPTED_AT_ONCE if settings().catalog_table else 1,
    )


@Once
def reindex() -> Reindex:
    from llamabda.reindex import Reindex

    return Reindex(catalog(), texts(), indexes(), embeddings())


@Once
def search() -> Search:
    from llamabda.search import Search

    return Search(space=space, catalog=catalog(), reranker=reranker)


@Once
def worker() -> Worker:
    from llamabda.worker import Worker

    return Worker(ingest, worker_queue)


@Once
def deliveries() -> Deliveries:
    """What comes out of the queue on AWS."""
    from llamabda.deliveries import Deliveries

    for name in ("BUCKET", "QUEUE_URL", "DEAD_LETTER_URL"):
        if not getattr(settings(), name.lower()):
            raise ConfigurationError(f"{name} is not set: events of the queue cannot be worked on without it")
    return Deliveries(ingest, wiring_aws.queue(), wiring_aws.objects(), extractor, settings().bucket)


@Once
def prometheus() -> PrometheusMetrics:
    from llamabda.adapters.prometheus import PrometheusMetrics

    return PrometheusMetrics(_gauges)


@Once
def metrics() -> Metrics:
    """Nobody comes to a function for its numbers: there they are printed, and CloudWatch counts them."""
    return wiring_aws.metrics() if wiring_aws.on_lambda() else prometheus()


def receipts() -> Receipts | None:
    """What an invocation costs; None where nobody bills one."""
    return wiring_aws.receipts() if wiring_aws.on_lambda() else None


def _gauges() -> Mapping[str, Mapping[str, int]]:
    model = {"model": {"taken": admission().taken}}
    return model if settings().queue_url else {"queue": worker_queue().counts(), **model}


@Once
def rate_limits() -> tuple[Buckets | None, Buckets | None]:
    """Those of addresses and of users."""
    from llamabda.rate_limits import Buckets

    address, user = settings().rate_limit_address, settings().rate_limit_user
    return Buckets("address", address) if address else None, Buckets("user", user) if user else None


@Once
def admission() -> Admission:
    from llamabda.admission import Admission

    return Admission(settings().max_queue)


@Once
def ask() -> Ask:
    from llamabda.ask import Ask

    return Ask(search=search(), generator=generator, admission=admission())


@Once
def extractor() -> Extractor:
    from llamabda.adapters.kreuzberg import KreuzbergExtractor

    return KreuzbergExtractor()


@Once
def language_detector() -> LanguageDetector:
    from llamabda.adapters.kreuzberg_language import KreuzbergLanguageDetector

    return KreuzbergLanguageDetector()


def language_check() -> LanguageCheck:
    """Of the model that this process works with now."""
    from llamabda.catalogue import ENTRIES
    from llamabda.language_check import LanguageCheck

    engine = "" if settings().embed_backend == "onnx" else "EMBED_BACKEND=onnx and "
    embedders = (entry for entry in ENTRIES if entry.kind == "embedder")
    return LanguageCheck(
        detector=language_detector,
        knows=_known_languages,
        model=spaces().model().name,
        others={f"{engine}EMBED_MODEL_NAME={entry.name}": entry.languages for entry in embedders},
    )


def _known_languages() -> tuple[str, ...]:
    """The embedder's; none while it is not there: nobody waits for it to be told about languages."""
    try:
        return () if _space.peek() is None else spaces().current().embedder.languages
    except LlamabdaError:
        return ()


def checks() -> Mapping[str, Callable[[], str]]:
    """For readiness: each returns "ok" or what it is still doing, and raises LlamabdaError when it fails."""
    optional = {"reranker": _check_reranker} if settings().rerank_model else {}
    return {
        "users": _pinged(users),
        "catalog": _pinged(catalog),
        "index": _check_index,
        "embedder": _check_embedder,
        "generator": _check_generator,
        **optional,
    }


def _pinged(provider: Callable[[], UserStore | Catalog]) -> Callable[[], str]:
    def check() -> str:
        provider().ping()
        return "ok"

    return check


def _check_index() -> str:
    if _space.state in ("idle", "loading"):
        _space.start()
        return "loading"  # the index is chosen by the embedding model
    found = space()
    found.index.ping()
    documents = embeddings().documents()
    if documents and embeddings().left(found.build) == documents:
        raise DependencyFailed("the index holds none of the documents: run `llamabda reindex`", dependency="index")
    return "ok"


def _check_embedder() -> str:
    _space.start()
    if _space.peek() is None:
        return "loading"
    try:
        spaces().current()
    except DependencyFailed as exc:
        if exc.dependency == "embedder":
            raise
    return "ok"


def _check_generator() -> str:
    remote = remote_generator()
    if remote is not None:
        return remote.check(within=READY_SECONDS)
    if not settings().model_path:
        return "none"
    _generator.start()
    return "loading" if _generator.peek() is None else "ok"


def _check_reranker() -> str:
    _reranker.start()
    return "loading" if _reranker.peek() is None else "ok"
