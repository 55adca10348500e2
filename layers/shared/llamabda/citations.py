"""Numbers in brackets: read from what a model wrote, never believed, written anew for what is shown. Pure.

An answer is plain text: whatever would make a reader's browser fetch, run or hide something is taken out of it here.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llamabda.sentences import BEGINNING, SEEN_AHEAD, Place, sentences_from
from llamabda.types import Citation, Hit, Span

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


SETTLES_AFTER = 400  # code points: reading fewer anew costs less than to tell which need not be
LINE_HEAD = 8  # code points of a line's first word that tell whether it begins an item
_LETTER = re.compile(r"[^\W_]")


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
    return Growing(count).statements(text)


@dataclass(slots=True)
class Growing:
    """`parse` of a text that grows, without reading anew what no further word can change."""

    count: int
    settled: int = 0  # statements that are not read any more
    _read: int = 0  # of the text, code points that are not
    _bare: str = ""  # the same without markers
    _leading: bool | None = None  # numbers stand at the heads of sentences; None: not known yet
    _place: Place = BEGINNING

    def statements(self, text: str, done: int = 0) -> list[Statement]:
        """Those of the whole text but the first `settled`, which only ever are among the first `done`."""
        self._settle(text, done)
        bare, marks = self._without_markers(text)
        leading = self._leading
        if leading is None:
            leading = bool(marks) and not bare[: marks[0][0]].strip()
        return [
            Statement(shown, tuple(numbers))
            for (_, span), numbers in self._cited(bare, marks, leading)
            if (shown := plain(bare[span.start : span.end]))
        ]

    def _without_markers(self, text: str) -> tuple[str, list[tuple[int, list[int]]]]:
        further, marks = _without_markers(text[self._read :], self.count)
        return self._bare + further, [(len(self._bare) + at, numbers) for at, numbers in marks]

    def _cited(
        self, bare: str, marks: list[tuple[int, list[int]]], leading: bool
    ) -> list[tuple[tuple[Place, Span], list[int]]]:
        """Sentences and their numbers. Those of a sentence that is settled are nobody's."""
        found = list(sentences_from(bare, self._place))
        spans = [span for _, span in found]
        starts, ends = [span.start for span in spans], [span.end for span in spans]
        cited: list[list[int]] = [[] for _ in spans]
        for at, numbers in marks if spans else ():
            owner = min(bisect_right(ends, at), len(spans) - 1) if leading else bisect_left(starts, at) - 1
            if owner >= 0:
                cited[owner].extend(n for n in numbers if n not in cited[owner])
        return list(zip(found, cited, strict=True))

    def _settle(self, text: str, done: int) -> None:
        """Goes on to the last sentence before which all are done and whose beginning stays, whatever follows."""
        if done <= self.settled or len(text) - self._read < SETTLES_AFTER:
            return
        firm = _firm(text[self._read :])
        bare, marks = self._without_markers(text[: self._read + firm])
        at = self._place
        settled = count = self.settled
        ended = at.start
        for place, span in sentences_from(bare, self._place):
            if count > done or not _stays(bare, place.start):
                break
            between = any(ended <= mark < place.start for mark, _ in marks)  # it may be the next sentence's
            if place != at and place.start > self._place.start and not between:
                at, settled = place, count
            ended = span.end
            count += bool(plain(bare[span.start : span.end]))
        if at == self._place:
            return
        if self._leading is None:
            self._leading = bool(marks) and not bare[: marks[0][0]].strip()
        self._read += _before(text[self._read :], at.start - len(self._bare))
        self._bare, self._place, self.settled = bare[: at.start], at, settled


def _firm(text: str) -> int:
    """How much of a text no marker that is not whole yet can take away."""
    if text.count("【") > text.count("】"):
        return 0
    opened = text.rfind("[")
    return len((text[:opened] if opened > text.rfind("]") else text).rstrip())


def _stays(bare: str, start: int) -> bool:
    """Whether a sentence begins at `start` whatever follows: what tells so is there, and the next line's first word."""
    seen = start + SEEN_AHEAD + 1
    word = _LETTER.search(bare, seen)
    return word is not None and word.end() + LINE_HEAD <= len(bare)


def _before(text: str, length: int) -> int:
    """How much of a text comes before the markers that stand where `length` code points of it are left."""
    left = position = 0
    for match in _MARKER.finditer(text):
        if left + match.start() - position >= length:
            break
        left += match.start() - position
        position = match.end()
    return position + length - left


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
