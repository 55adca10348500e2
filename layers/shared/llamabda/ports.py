"""What the use cases need from the world, each with one behaviour that every adapter keeps.

One contract suite per port (tests/contracts) runs over every adapter. All calls block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from llamabda.filters import Scope
from llamabda.types import (
    Build,
    Chunk,
    Deadline,
    DocState,
    Document,
    DocumentPage,
    Embedding,
    Found,
    GenerationKey,
    Invite,
    Lease,
    Metadata,
    Pending,
    Prompt,
    Reply,
    Session,
    StoredObject,
    User,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Embedder(Protocol):
    """Turns texts into vectors. Vectors are float32 of unit length."""

    @property
    def dim(self) -> int:
        """Length of a vector."""

    @property
    def fingerprint(self) -> str:
        """Names model and preparation, [0-9a-z-]{1,64}: vectors of different fingerprints must not be compared."""

    @property
    def background(self) -> float:
        """The cosine that a question and an unrelated document typically have under this model, in [0, 1)."""

    @property
    def ceiling(self) -> float:
        """The cosine of a question and a document of the same words: 1 where both are embedded alike, else less."""

    @property
    def languages(self) -> tuple[str, ...]:
        """Those that the model knows, ISO 639-1; with "mul" among them, any. Empty: nobody has said."""

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, dim). A text's vector does not depend on the other texts. Longer texts are cut at the model's limit."""

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """(dim,)."""


class Reranker(Protocol):
    """Reads a question together with each text and says how well they fit."""

    def scores(self, question: str, texts: Sequence[str], *, deadline: Deadline) -> NDArray[np.float32]:
        """(m,) float32, finite: the scores of the first m texts, higher is better; 0 stands between fit and unfit.

        m is the number of texts, less only when the deadline comes before: a text that has been begun is finished, no
        other is begun. Scores are comparable for one question; a text's does not depend on the other texts. A text
        that is too long is cut at its end, a question only when it alone takes more than half of the model's limit.
        DependencyFailed when the model cannot be run.
        """


class Index(Protocol):
    """Finds chunks by words and by vectors. It knows nothing of which generation is live: the catalog does."""

    def add(
        self, chunks: Sequence[Chunk], vectors: NDArray[np.float32], *, alive: Callable[[], None] = lambda: None
    ) -> None:
        """Makes chunks searchable before it returns; one that is there already is replaced.

        `vectors` is (n, dim), unit length, in the order of `chunks`. A chunk's `context` counts as part of its text in
        text searches. Where that takes long, `alive` is called every few seconds; what it raises ends the work.
        """

    def search(
        self,
        text: str,
        vector: NDArray[np.float32] | None,
        *,
        tenants: Sequence[str],
        scopes: Sequence[Scope],
        deadline: Deadline | None = None,
    ) -> Sequence[Found]:
        """For each scope the chunks of these tenants that the words find, and those of the highest cosine, best first.

        Words are searched by BM25, with the statistics of these tenants or, where an index cannot tell them apart, of
        all. `vector` is (dim,) of unit length; None, or a text without words, leaves that search out. A scope's filter
        leaves out chunks by their metadata before the best are taken; statistics stay those of all. The terms that
        filters ask for are those of `filters.terms` and `identifiers.terms`.

        DependencyFailed when the index cannot answer, or not before the deadline.
        """

    def chunks(self, key: GenerationKey, *, limit: int, after: int = -1) -> Sequence[Chunk]:
        """The chunks of one generation in order of `ordinal`, those with `ordinal > after`, at most `limit`."""

    def vectors(self, key: GenerationKey) -> tuple[Sequence[Chunk], NDArray[np.float32]]:
        """All chunks of one generation in order of `ordinal`, and their vectors (n, dim) as they were added."""

    def delete(self, keys: Iterable[GenerationKey]) -> None:
        """Removes whole generations; unknown ones are ignored."""

    def ping(self) -> None:
        """Raises DependencyFailed when the index cannot answer."""


class Indexes(Protocol):
    """One index for each build of vectors: those of different models are never mixed."""

    @property
    def place(self) -> str:
        """Where they are. What is made in one place is not there in another."""

    def make(self, build: str, dim: int) -> None:
        """So that the index is there, empty when it was not."""

    def open(self, build: str, dim: int) -> Index:
        """One that has been made."""

    def there(self, build: str) -> bool: ...

    def names(self) -> frozenset[str]:
        """Of all that are there."""

    def delete(self, keys: Iterable[GenerationKey]) -> None:
        """Removes whole generations from all of them."""

    def drop(self, build: str) -> None:
        """Removes a whole index; an unknown one is ignored."""

    def publish(self, build: str) -> None:
        """Readers search this one: whoever looks at the indexes from outside finds it under their common name."""


class Embeddings(Protocol):
    """Which build of vectors readers search, and which documents have theirs in which. It shares the catalog's writes.

    A build is being made, live (one at most), retired, or being dropped; then it is forgotten.
    """

    def owner(self) -> str:
        """Names this installation: indexes elsewhere belong to one. Random, and the same for ever."""

    def live(self) -> Build | None:
        """The one that readers search; None: there was none yet."""

    def settle(self, embedding: Embedding) -> Build | None:
        """Makes a build of this embedding live where there is none yet, or no document is live.

        Returns the live one, which is another's when documents were trained with another.
        """

    def begin(self, embedding: Embedding, *, anew: bool = False) -> Build:
        """A build of this embedding to be made, or gone on with: the live one if it is its, else the newest.

        `anew`: neither the live one nor one that was live; one that was begun is gone on with.
        """

    def unmade(self, build: str, *, limit: int, after: GenerationKey | None = None) -> Sequence[GenerationKey]:
        """Live documents without vectors in this build, in order of tenant and id, those that follow `after`."""

    def left(self, build: str) -> int:
        """How many such documents there are."""

    def documents(self) -> int:
        """How many documents are live."""

    def made(self, keys: Iterable[GenerationKey], build: str) -> None:
        """These have all their vectors in the build's index. Those that are not live (any more) are ignored."""

    def adopt(self, build: str) -> bool:
        """Readers search it from now on. False, and nothing changes, while a live document lacks its vectors, and for
        one that is being dropped or unknown."""

    def names(self) -> frozenset[str]:
        """Of all builds."""

    def discard(self, *, retired_before: datetime, unfinished_before: datetime) -> Sequence[str]:
        """Builds to be dropped: from now on they can be neither adopted nor gone on with.

        Those that readers stopped searching before `retired_before`, those that nobody has worked on since
        `unfinished_before`, and those that were to be dropped before.
        """

    def dropped(self, build: str) -> None:
        """Its index is gone, after `discard`."""

    def lost(self, build: str) -> None:
        """Its index is gone though nobody dropped it: no document has vectors in it."""

    def moved(self, place: str) -> bool:
        """The indexes are at `place` from now on. True when they were elsewhere: no document has vectors any more."""


class Catalog(Protocol):
    """The one place that says which generation of a document readers see.

    Every change is one atomic, conditional write. A `sequencer` orders the writes of one document as its source saw
    them (S3's): where given, a write with a lower one than the document already carries is refused. Sequencers compare
    as text, the shorter one padded on the right with zeros.
    """

    def begin(
        self,
        tenant: str,
        doc_id: str,
        *,
        source: str,
        metadata: Metadata,
        state: DocState = "processing",
        sequencer: str | None = None,
        instructions: str = "",
    ) -> int | None:
        """Allots the next generation: 1, 2, ..., never re-used, not even after a delete.

        `instructions` are kept for whoever makes it.

        None: the sequencer says that a later write has been seen already.
        """

    def start(self, key: GenerationKey) -> Pending | None:
        """Somebody begins to make the generation now: its state is "processing".

        None: it cannot go live any more, since it is live, failed, deleted, given up, or a later one is live, which
        the document's state says then.
        """

    def requeue(self, key: GenerationKey, error: str | None) -> None:
        """It will be tried again: its state is "queued", with what went wrong (None: nothing).

        Nothing happens when it is live or garbage.
        """

    def unchanged(self, key: GenerationKey, live: int, *, build: str = "") -> bool:
        """The generation says nothing that the live one does not say: it is garbage, and the document is "ready".

        Where it carries a sequencer, the document carries that from now on, unless its own is later. Otherwise whatever
        was begun in between and is still to be made is garbage, too: it can not go live any more.
        False, and nothing changes, when `live` is not the live generation (any more), or has no vectors in `build`.
        """

    def commit(
        self,
        key: GenerationKey,
        *,
        source: str,
        metadata: Metadata,
        sha256: str,
        size: int,
        chunks: int,
        recipe: str = "",
        build: str = "",
        sequencer: str | None = None,
    ) -> bool:
        """Makes a generation live and the former one garbage, in one write. True, too, when it is live already.

        `build`: where its vectors are. DependencyFailed, and nothing changes, when readers search another one by now.

        False when a later generation is live already, the document was deleted after this generation began, the
        generation failed or was given up, or the sequencer is behind: then the generation is garbage, and the state is
        that of what is live. Where both the document and this call carry a sequencer, it alone decides which is later.
        """

    def fail(self, key: GenerationKey, error: str) -> None:
        """The ingestion ended without a result; what was live stays live. The generation is garbage.

        Nothing happens when it is live itself, or garbage already. The failure of a generation whose sequencer is
        behind the document's says nothing about the document.
        """

    def get(self, tenant: str, doc_id: str) -> Document | None: ...

    def list(
        self, tenant: str, *, state: DocState | None = None, limit: int = 50, cursor: str | None = None
    ) -> DocumentPage:
        """In order of id. A cursor that is not ours raises InvalidInput."""

    def live(self, documents: Iterable[tuple[str, str]]) -> Mapping[tuple[str, str], int]:
        """The live generation of each (tenant, doc_id) that has one."""

    def delete(self, tenant: str, doc_id: str, *, sequencer: str | None = None) -> bool:
        """Leaves a tombstone; readers stop seeing the document at once.

        False: it was not there, or the sequencer is behind.
        """

    def garbage(self, *, before: datetime, abandoned_before: datetime) -> Sequence[GenerationKey]:
        """Generations that stopped being live, or failed, before `before`.

        Those begun or last started before `abandoned_before` that neither went live nor failed are failed by this call:
        they cannot go live any more, and are garbage from now on. What is queued, or was begun with instructions and so
        has its place in a queue, is not abandoned for 15 days.
        """

    def swept(self, keys: Iterable[GenerationKey]) -> None:
        """Forgets garbage whose chunks and texts are gone."""

    def ping(self) -> None:
        """Raises DependencyFailed when the catalog cannot answer."""


class TextStore(Protocol):
    """The extracted texts that citations point into."""

    def put(self, key: GenerationKey, text: str) -> None: ...

    def get(self, key: GenerationKey) -> str | None: ...

    def delete(self, keys: Iterable[GenerationKey]) -> None: ...


class Queue(Protocol):
    """Work that is not lost: what was put comes to a worker, again and again, until it is done."""

    def put(self, keys: Iterable[GenerationKey], *, delay: float = 0.0) -> None:
        """To be taken in `delay` seconds at the earliest.

        Putting again what nobody has taken yet changes its time; a queue that cannot do so lets it come at both.
        """

    def withdraw(self, keys: Iterable[GenerationKey]) -> None:
        """Nobody need take these any more. A queue that cannot do so leaves them: whoever takes one finds it made."""


class WorkerQueue(Queue, Protocol):
    """One that a worker asks for work."""

    def take(self, *, limit: int, seconds: float) -> Sequence[Lease]:
        """What waits longest and is due, at most `limit`. Nobody else gets it for `seconds`.

        What was taken before, and came back, comes alone: it may be what ends those who work on it.
        """

    def extend(self, leases: Sequence[Lease], *, seconds: float) -> None:
        """Keeps what was taken for `seconds` more, from now."""

    def done(self, lease: Lease) -> None: ...

    def retry(self, lease: Lease, *, delay: float) -> None:
        """Gives it back, to be taken again in `delay` seconds."""

    def counts(self) -> Mapping[str, int]:
        """`waiting` and `taken`."""


class Letters(Protocol):
    """Messages to those who work on deliveries, and to those who look after what failed."""

    def send(self, body: str, *, delay: float) -> None:
        """To be delivered in `delay` seconds at the earliest."""

    def bury(self, body: str, why: str) -> None:
        """To where nobody works on it, with the reason."""


class ObjectStore(Protocol):
    """Objects of buckets, as sources of documents."""

    def read(self, bucket: str, key: str, *, version: str | None = None, limit: int) -> StoredObject:
        """The whole object, or that version of it.

        NotFound when it is gone, TooLarge when it has more than `limit` bytes, UnsupportedMedia when it cannot be read
        as it is stored now.
        """


class Extractor(Protocol):
    """Reads files."""

    def extract(self, data: bytes, *, name: str) -> str:
        """The text of a file. `name` hints at the format. UnsupportedMedia when it cannot be read, naming why."""


class LanguageDetector(Protocol):
    """Tells which language a text is in."""

    def language(self, text: str) -> str | None:
        """ISO 639-1; None when unsure. Any string; never raises."""


class Generator(Protocol):
    """A language model that continues a prompt."""

    @property
    def name(self) -> str:
        """The model's; empty while it is not known."""

    @property
    def context_size(self) -> int:
        """Tokens that prompt and completion may fill together."""

    def count_tokens(self, text: str) -> int:
        """Of plain text: control tokens inside it are counted as text."""

    def generate(self, prompt: Prompt, *, max_tokens: int, stop: Sequence[str] = (), deadline: Deadline) -> Generation:
        """Starts a completion: greedy, no sampling. Busy when the queue before the model is full.

        InvalidInput, here or at the first piece, when the question does not fit into the context. A model elsewhere is
        asked at the first piece: Busy when it has no time, DependencyFailed when it cannot be used; the latter at any
        piece when the answer breaks off.
        """


class Generation(Protocol):
    """A running completion: iterate it for the pieces of text, then read how it went."""

    def __iter__(self) -> Iterator[str]: ...

    @property
    def finish_reason(self) -> str:
        """ "stop", "length" or "deadline"; meaningful once the iteration ended."""

    @property
    def prompt_tokens(self) -> int: ...

    @property
    def cached_tokens(self) -> int: ...

    @property
    def completion_tokens(self) -> int: ...

    @property
    def prefill_ms(self) -> float: ...

    @property
    def decode_ms(self) -> float: ...

    def close(self) -> None:
        """Stops generating; idempotent."""


class UserStore(Protocol):
    """Accounts. A username is unique, compared as given after NFKC and case folding by the caller."""

    def add(self, user: User, *, invite: str | None = None, now: float = 0.0) -> None:
        """Conflict when the username is taken.

        `invite`: the digest of one that is used up by the same write; Forbidden when it is not there, or expired at
        `now` (epoch seconds).
        """

    def get(self, username: str) -> User | None: ...

    def list(self) -> Sequence[User]:
        """In order of username."""

    def set_disabled(self, username: str, disabled: bool) -> bool:
        """Disabling also raises `credentials` and withdraws the invites that the user made. False: no such user."""

    def set_password_hash(
        self, username: str, password_hash: str, *, renew: bool = False, instead_of: str | None = None
    ) -> bool:
        """`renew` also raises `credentials`. False: no such user, or the hash is not `instead_of` (any more)."""

    def add_invite(self, invite: Invite) -> None:
        """Forbidden when the user who makes it is disabled or gone."""

    def invite(self, digest: str) -> Invite | None:
        """None: not there, or used up. It may have expired."""

    def ping(self) -> None:
        """Raises DependencyFailed when the store cannot answer."""


class SessionStore(Protocol):
    """Refresh tokens, as their digests."""

    def add(self, session: Session, *, now: float) -> None:
        """May forget sessions that had expired at `now` (epoch seconds)."""

    def get(self, session_id: str) -> Session | None:
        """None: there is none (any more). It may have expired."""

    def rotate(self, session_id: str, old: str, new: str, *, expires_at: float, now: float) -> Session | None:
        """The session as it is then, when `old` is its newest digest and has not expired; `new` takes its place.

        None: it is not, and the session is ended by the same write: somebody uses a token for the second time. Of many
        calls at once with the same `old`, one succeeds.
        """

    def end(self, session_id: str, digest: str) -> None:
        """Nothing happens unless `digest` is the session's newest."""

    def end_all(self, username: str) -> None: ...


class AttemptStore(Protocol):
    """Counts guesses, so that there cannot be many."""

    def take(self, key: str, *, limit: int, window: float, now: float) -> float:
        """0.0 and counted, unless there were `limit` in the last `window` seconds: then the seconds until the oldest of
        them is forgotten, at most `window`. Of many calls at once no more than `limit` are counted."""

    def give_back(self, key: str) -> None:
        """Forgets the newest."""

    def forget(self, key: str) -> None: ...


class Metrics(Protocol):
    """Counts what happens. Never raises, and takes no time worth mentioning."""

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """`route`: the template, "" when none fits; `status`: 0 when no reply was begun."""

    def stages(self, timings: Mapping[str, float]) -> None:
        """Milliseconds per stage of one question."""

    def answer(self, reply: Reply) -> None:
        """One question was answered, or refused."""


class SigningKey(Protocol):
    """A private RSA key that does not show itself."""

    @property
    def kid(self) -> str:
        """RFC 7638 thumbprint of the public key."""

    def sign(self, message: bytes) -> bytes:
        """RSASSA-PKCS1-v1_5 with SHA-256 (RS256)."""


class Signer(Protocol):
    """Holds signing keys, which follow on one another."""

    def key(self) -> SigningKey:
        """The one that signs now. Take it once for each token: a moment later it may be another one."""

    def public_jwks(self) -> Mapping[str, object]:
        """A JWK set (RFC 7517) of every public key whose tokens are still good, the current one first."""
