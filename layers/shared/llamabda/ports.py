"""What the use cases need from the world, each with one behaviour that every adapter keeps.

One contract suite per port (tests/contracts) runs over every adapter. All calls block.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from llamabda.types import (
    Chunk,
    Deadline,
    DocState,
    Document,
    DocumentPage,
    GenerationKey,
    Metadata,
    Prompt,
    ScoredChunk,
    TextMatches,
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
        """The cosine that unrelated texts typically have under this model, in [0, 1)."""

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, dim). A text's vector does not depend on the other texts. Longer texts are cut at the model's limit."""

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """(dim,)."""


class Index(Protocol):
    """Finds chunks by words and by vectors. It knows nothing of which generation is live: the catalog does."""

    def add(self, chunks: Sequence[Chunk], vectors: NDArray[np.float32]) -> None:
        """Makes chunks searchable before it returns; one that is there already is replaced.

        `vectors` is (n, dim), unit length, in the order of `chunks`. A chunk's `context` counts as part of its text in
        text searches.
        """

    def search_text(self, query: str, *, tenants: Sequence[str], limit: int) -> TextMatches:
        """BM25 over the chunks of these tenants, with their own statistics, best first, at most `limit`."""

    def search_vector(
        self, vector: NDArray[np.float32], *, tenants: Sequence[str], limit: int
    ) -> Sequence[ScoredChunk]:
        """The chunks of these tenants with the highest cosine, best first, at most `limit`."""

    def chunks(self, key: GenerationKey, *, limit: int, after: int = -1) -> Sequence[Chunk]:
        """The chunks of one generation in order of `ordinal`, those with `ordinal > after`, at most `limit`."""

    def delete(self, keys: Iterable[GenerationKey]) -> None:
        """Removes whole generations; unknown ones are ignored."""

    def ping(self) -> None:
        """Raises DependencyFailed when the index cannot answer."""


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
    ) -> int | None:
        """Allots the next generation: 1, 2, ..., never re-used, not even after a delete.

        None: the sequencer says that a later write has been seen already.
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
        sequencer: str | None = None,
    ) -> bool:
        """Makes a generation live and the former one garbage, in one write.

        False, and nothing changes but that the generation is garbage, when a later generation is live already, the
        document was deleted after this generation began, the generation failed or was given up, or the sequencer is
        behind. Where both the document and this call carry a sequencer, it alone decides which of two is later.
        """

    def fail(self, key: GenerationKey, error: str) -> None:
        """The ingestion ended without a result; what was live stays live. The generation is garbage."""

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

        Those begun before `abandoned_before` that neither went live nor failed are failed by this call: they cannot go
        live any more, and are garbage from now on.
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


class Extractor(Protocol):
    """Reads files."""

    def extract(self, data: bytes, *, name: str) -> str:
        """The text of a file. `name` hints at the format. UnsupportedMedia when it cannot be read, naming why."""


class Generator(Protocol):
    """A language model that continues a prompt."""

    @property
    def name(self) -> str: ...

    @property
    def context_size(self) -> int:
        """Tokens that prompt and completion may fill together."""

    def count_tokens(self, text: str) -> int:
        """Of plain text: control tokens inside it are counted as text."""

    def generate(self, prompt: Prompt, *, max_tokens: int, stop: Sequence[str] = (), deadline: Deadline) -> Generation:
        """Starts a completion: greedy, no sampling. Busy when the queue before the model is full."""


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

    def add(self, user: User) -> None:
        """Conflict when the username is taken."""

    def get(self, username: str) -> User | None: ...

    def list(self) -> Sequence[User]:
        """In order of username."""

    def set_disabled(self, username: str, disabled: bool) -> bool:
        """False: no such user."""

    def set_password_hash(self, username: str, password_hash: str) -> bool:
        """False: no such user."""

    def ping(self) -> None:
        """Raises DependencyFailed when the store cannot answer."""


class Signer(Protocol):
    """Holds a private RSA key and never shows it."""

    @property
    def kid(self) -> str:
        """RFC 7638 thumbprint of the public key."""

    def sign(self, message: bytes) -> bytes:
        """RSASSA-PKCS1-v1_5 with SHA-256 (RS256)."""

    def public_jwks(self) -> Mapping[str, object]:
        """A JWK set (RFC 7517) of every public key whose tokens are still good, the current one first."""
