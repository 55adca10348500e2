"""Ids: which words of a question may be one, and under which ids a document is known. Pure.

**In a question** a word is an id when letters and digits are mixed in it, with `.`, `-`, `_` or `/` between them if
need be: T1406, T1406.001, CVE-2024-1234, INC-42, A320-200. Plain words and plain numbers are none: too much is called
"harbour" or "7". Of "T1406/T1407", "T1406–T1410", "T1406-related" and "T1406.Is it" the whole is taken, which may be an
id, and then those parts that are ids. Neither case nor accents count. A long dash stands between words; every other
dash is a hyphen.

**A document** is known by

- its own ids: the metadata entry `id`, and the document's id, as a whole, without the folders before it, and without
  the file name's ending ("reports/INC-42.pdf" is known as INC-42);
- the ids that it refers to: every other metadata entry whose key ends in the word id or ids (`ids`, `parent_id`,
  `technique-ids`, `customerId`, `orderIDs`, `case.id`, but not `paid`).

A value is a text or a list of texts; one that could not be told from a word or a number in a question is not kept.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llamabda.filters import Has
from llamabda.types import Metadata

MAX_IDS = 8  # of one question: each costs searches of its own
MAX_CHARS = 128  # what is longer is data that was pasted

_ID = r"[^\W_]+(?:[-._/][^\W_]+)*"
_WORD = re.compile(_ID.replace("-", "-\u2013", 1))
_VALUE = re.compile(rf"[\W_]*({_ID})[\W_]*")
_JOINTS = tuple(map(re.compile, (r"/", r"\u2013", r"\.(?=[^\W\d_])", r"-")))  # from the loosest to the closest
_LISTS = _JOINTS[:2]  # what these join is rather several ids than one
_DASHES = dict.fromkeys((*range(0x2010, 0x2016), 0x2212), "-")
_ASKED_DASHES = {**_DASHES, 0x2013: "\u2013", 0x2014: " ", 0x2015: " "}
_ID_KEY = re.compile(r"(?:(?:^|[\W_])(?:ids?|Ids?|IDs?|IDS)|(?<=[^\W\dA-Z_])I[dD][sS]?|(?<=\d)I[dD][sS]?)")
_FOLDERS = re.compile(r"[/\\:]")
_ENDING = re.compile(r"\.[a-z][a-z0-9]{0,4}$")

# No metadata filter's term begins so: theirs begin with a digit.
_OWN, _ANY = "#is:", "#id:"


@dataclass(frozen=True, slots=True)
class Identity:
    """Under which ids a document is known, folded."""

    own: frozenset[str]
    others: frozenset[str]

    @property
    def all(self) -> frozenset[str]:
        return self.own | self.others


def mentioned(question: str) -> tuple[str, ...]:
    """The ids in a question, folded, in order, each once, at most `MAX_IDS`.

    When there are more, words and what is listed in them come before what else is in them, and that before the lists
    as a whole.
    """
    found: dict[str, int] = {}
    for match in _WORD.finditer(_bare(unicodedata.normalize("NFKC", question).translate(_ASKED_DASHES))):
        for word, rank in _parts(match.group(), _JOINTS):
            plain = word.translate(_DASHES)
            if _is_id(plain):
                found[plain] = min(rank, found.get(plain, rank))
    chosen = frozenset(sorted(found, key=lambda one: found[one])[:MAX_IDS])
    return tuple(one for one in found if one in chosen)


def identity(doc_id: str, metadata: Metadata) -> Identity:
    own = set(_ids(metadata.get("id")))
    name = _FOLDERS.split(_fold(doc_id))[-1]
    for known_as in (doc_id, name, _ENDING.sub("", name)):
        own.update(_ids(known_as))
    others = {one for key, value in metadata.items() if key != "id" and is_id_key(key) for one in _ids(value)}
    return Identity(frozenset(own), frozenset(others - own))


def is_id_key(key: str) -> bool:
    """Whether a metadata entry of this name holds ids."""
    return any(match.end() == len(key) for match in _ID_KEY.finditer(key))


def terms(doc_id: str, metadata: Metadata) -> frozenset[str]:
    """What an index keeps for a document beside the terms of `filters.terms`, so that `own` and `known` find it."""
    found = identity(doc_id, metadata)
    return frozenset({_OWN + one for one in found.own} | {_ANY + one for one in found.all})


def own(identifier: str) -> Has:
    """Documents that have this id for their own."""
    return Has(_OWN + identifier)


def known(identifier: str) -> Has:
    """Documents that have this id, or refer to it."""
    return Has(_ANY + identifier)


def _parts(word: str, joints: Sequence[re.Pattern[str]], rank: int = 0) -> Iterator[tuple[str, int]]:
    """A word and the parts of it, each with its rank: the lower, the likelier it is what is meant."""
    for at, joint in enumerate(joints):
        parts = joint.split(word)
        if len(parts) > 1:
            listed = joint in _LISTS and sum(map(_is_id, parts)) > 1
            yield word, 2 if listed else rank
            for part in parts:
                yield from _parts(part, joints[at + 1 :], rank if listed else max(rank, 1))
            return
    yield word, rank


def _ids(value: object) -> Iterator[str]:
    for element in value if isinstance(value, list | tuple) else (value,):
        if isinstance(element, str) and (match := _VALUE.fullmatch(_fold(element))) and _is_id(match[1]):
            yield match[1]


def _is_id(word: str) -> bool:
    return len(word) <= MAX_CHARS and any(map(str.isalpha, word)) and any(map(str.isdigit, word))


def _fold(text: str) -> str:
    return _bare(unicodedata.normalize("NFKC", text).translate(_DASHES))


def _bare(text: str) -> str:
    """Without case and accents."""
    return "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))
