"""Numbers in brackets: read from what a model wrote, never believed, written anew for what is shown. Pure.

An answer is plain text: whatever would make a reader's browser fetch, run or hide something is taken out of it here.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llamabda.sentences import sentences
from llamabda.types import Citation, Hit

_LIST = r"\^?\d{1,9}(?:\s*(?:,|;|&|-|–|—|and|to|e|a)\s*\^?\d{1,9})*"
# Each run of blanks is tried once, from its first: else it takes the square of its length.
_MARKER = re.compile(rf"(?<!\s)\s*(?:\[\s*({_LIST})\s*\]|【\s*({_LIST})[^】]{{0,20}}】)")
_RANGE = re.compile(r"(\d+)(?:\s*(?:-|–|—|to|a)\s*\^?(\d+))?")
_IMAGE_OR_LINK = re.compile(r"!?\[([^\[\]]*)\](?:\([^()]*(?:\([^()]*\)[^()]*)*\)|\[[^\[\]\d][^\[\]]*\])")
_TAG = re.compile(r"<!--.*?(?:-->|$)|</?[a-zA-Z][^<>]*>|<[!?][^<>]*>", re.DOTALL)
_AUTOLINK = re.compile(r"<((?:https?|ftp|mailto|data|javascript):[^<>\s]*)>", re.IGNORECASE)
_LEAD = re.compile(r"^(?:#{1,6}\s+|[-*+•▪]\s+|\d{1,2}[.)]\s+|>\s*)+")  # of a heading, an item, a quotation
# what is left of HTML and Markdown after the whole forms are gone must not come to life when it is put together
_DEFUSED = (
    (re.compile(r"<(?=[a-zA-Z/!?])"), "< "),
    (re.compile(r"!+\["), "["),
    (re.compile(r"\](?=[(\[:])"), "] "),
)


@dataclass(frozen=True, slots=True)
class Statement:
    """A sentence as a model wrote it, without its markers; `cited` are those of its numbers that exist, in order."""

    text: str
    cited: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """A sentence to show and the hits that support it: their places in the result list, from 0."""

    text: str
    support: tuple[int, ...]


def parse(text: str, count: int) -> list[Statement]:
    """The sentences of a generated text with the numbers from 1 to `count` that stand at each.

    Understands [1], [1, 2], [1][2], [1-3], [^1] and 【1】, after the sentence or before its full stop, or at its head
    when the text begins so. Every marker is taken out, those that name nothing too.
    """
    bare, marks = _without_markers(text, count)
    leading = bool(marks) and not bare[: marks[0][0]].strip()
    spans = sentences(bare)
    cited: list[list[int]] = [[] for _ in spans]
    for at, numbers in marks:
        if leading:
            owner = next((i for i, span in enumerate(spans) if span.end > at), len(spans) - 1)
        else:
            owner = max((i for i, span in enumerate(spans) if span.start < at), default=0)
        if spans:
            cited[owner].extend(n for n in numbers if n not in cited[owner])
    return [
        Statement(shown, tuple(numbers))
        for span, numbers in zip(spans, cited, strict=True)
        if (shown := plain(bare[span.start : span.end]))
    ]


def assemble(parts: Iterable[Part], hits: Sequence[Hit]) -> tuple[str, tuple[Citation, ...]]:
    """The answer's text, each sentence followed by its numbers, and what the numbers stand for, in order.

    A hit's number is its place in the result list, from 1. A part without support is left out.
    """
    cited: set[int] = set()
    shown = []
    for part in parts:
        text = plain(_MARKER.sub(_unbracket, part.text))
        if not part.support or not text:
            continue
        cited.update(part.support)
        shown.append(text + " " + "".join(f"[{place + 1}]" for place in sorted(part.support)))
    return " ".join(shown), tuple(Citation(place + 1, hits[place]) for place in sorted(cited))


def plain(text: str) -> str:
    """One line of plain text: no HTML, no Markdown links or images, nothing invisible. Addresses stay as words."""
    text = "".join(c for c in text if c in "\n\t\r‌‍" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co"))
    while True:
        fewer = _IMAGE_OR_LINK.sub(r"\1", _TAG.sub("", _AUTOLINK.sub(r"\1", text)))
        if fewer == text:
            break
        text = fewer
    text = _LEAD.sub("", " ".join(text.split()))
    for pattern, instead in _DEFUSED:
        text = pattern.sub(instead, text)
    return text.strip()


def _without_markers(text: str, count: int) -> tuple[str, list[tuple[int, list[int]]]]:
    """The text without its markers, and where each stood in what is left."""
    kept: list[str] = []
    marks: list[tuple[int, list[int]]] = []
    length = position = 0
    for match in _MARKER.finditer(text):
        piece = text[position : match.start()]
        kept.append(piece)
        length += len(piece)
        position = match.end()
        marks.append((length, _numbers(match.group(1) or match.group(2), count)))
    kept.append(text[position:])
    return "".join(kept), marks


def _unbracket(match: re.Match[str]) -> str:
    """A source's own references go; a year in brackets is content, but must not look like a citation."""
    listed = match.group(1) or match.group(2)
    return f" ({listed})" if len(listed) == 4 and listed.isdigit() else ""


def _numbers(listed: str, count: int) -> list[int]:
    found: list[int] = []
    for match in _RANGE.finditer(listed):
        first = int(match.group(1))
        last = int(match.group(2) or first)
        found.extend(n for n in range(max(1, first), min(last, count) + 1) if n not in found)
    return found
