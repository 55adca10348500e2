"""The languages of the documents that are there, beside those of the embedding model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from llamabda import wiring
from llamabda.cli.finding import Finding
from llamabda.errors import LlamabdaError
from llamabda.iso639 import ANY
from llamabda.types import SHARED_TENANT, Document, GenerationKey

NAME = "languages"
LOOKED_AT = 200  # documents, of all tenants together: half a second
PAGE = 50


def languages() -> Finding:
    """Warns of documents in a language that the embedding model does not know. It must be loaded."""
    try:
        texts = list(_texts())
    except LlamabdaError as error:
        return Finding(NAME, "fail", error.message, "see what else fails above")
    check = wiring.language_check()
    found = check.languages(texts)
    known = check.knows()
    model = f"the embedder knows {_listed(known)}" if known else "the embedder does not say which languages it knows"
    detail = f"{_counts(found)}; {model}"
    if check.unknown(found):
        return Finding(NAME, "warn", detail, check.advice(found))
    return Finding(NAME, "ok", detail)


def _listed(known: Sequence[str]) -> str:
    return "any language" if ANY in known else ", ".join(known)


def _counts(found: list[str | None]) -> str:
    """ "pt 14, en 3, unsure 1" """
    if not found:
        return "no documents yet"
    sure = Counter(code for code in found if code is not None).most_common()
    unsure = [("unsure", found.count(None))] if None in found else []
    return ", ".join(f"{code} {count}" for code, count in (*sure, *unsure))


def _texts() -> Iterator[str]:
    left = LOOKED_AT
    for document in _documents():
        if document.generation is None:
            continue
        text = wiring.texts().get(GenerationKey(document.tenant, document.id, document.generation))
        if text is not None:  # replaced and swept since it was listed
            yield text
            left -= 1
        if not left:
            return


def _documents() -> Iterator[Document]:
    """Of the shared tenant and of every account's, a page of each in turn, so that none hides the others."""
    tenants = dict.fromkeys((SHARED_TENANT, *(user.tenant for user in wiring.users().list())))
    cursors: dict[str, str | None] = dict.fromkeys(tenants)
    while cursors:
        for tenant, cursor in list(cursors.items()):
            page = wiring.catalog().list(tenant, limit=PAGE, cursor=cursor)
            yield from page.documents
            if page.next_cursor is None:
                del cursors[tenant]
            else:
                cursors[tenant] = page.next_cursor
