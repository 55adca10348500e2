"""Where sentences begin and end, in English and Portuguese and sanely elsewhere. Pure.

Rules, not a model: offsets into the given text are kept, a wrapped line is no boundary, and a heading, a list item, a
table row or a blank line is one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from llamabda.types import Span

LONGEST = 600  # code points; what has no full stop for longer (tables, lists in one line) is cut at its best pause
OPENING = 150  # code points
_SHORT_LINE = 50  # code points; a line this short before a capital is a heading or an item, not a wrapped line


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Never the last word of a sentence: a name follows.
_TITLES = _set(
    "mr mrs ms dr drs prof profa st sr sra srta dra exmo exma ilmo eng gen capt lt sgt cmdr rev hon gov sen rep "
    "vs cf eg ie viz approx dept univ assn bros obs"
)
# Abbreviations when a number follows, else words like any other ("no.", "set.").
_BEFORE_NUMBERS = _set(
    "fig figs eq eqs ref refs no nos nr vol vols ch chap sec sect art arts inc al cap caps p pp pg pag pág págs "
    "ed séc sécs num núm n jan feb mar apr jun jul aug sep sept oct nov dec fev abr ago set out dez av tel"
)
# May end a sentence or not: the next word's capital decides.
_INITIALS = re.compile(r"^(?:[^\W\d_]|(?:[^\W\d_]\.)+[^\W\d_])$")
# After initials such as "U.S." a capital says little, unless it begins one of these.
_STARTERS = _set(
    "the a an in on at it he she they we this that these those there its his her their but and however when while "
    "after o os as um uma em no na nos nas ele ela eles elas este esta esse essa isso isto mas e porém quando "
    "após com para por el la los las un en se il le les"
)
# Each run of stops is tried once, from its first: else a run of dots takes the square of its length.
_STOP = re.compile(r"(?:(?<![.!?…])[.!?…]+[\"'”’»)\]*_]*(?:\[\d+\])*(?=\s|$))|[。！？]+[」』”]*")
_WORD_BEFORE = re.compile(r"([^\s(\[{\"'“”‘’«»]+)$")
_OPENING = " \t\r\n\"'“”‘’«»([{*_-–—¿¡"
_NEW_BLOCK = re.compile(r"\s*(?:#{1,6}\s|[-*+•▪]\s|\(?\d{1,3}[.)]\s|\(?[a-zA-Z][)]\s|>|\||```|~~~)")
_HEADING = re.compile(r"\s*#{1,6}\s")
_ENDED = re.compile(r"[.!?…:;][\"'”’»)\]*_]*\s*$")
_ENUMERATOR = re.compile(r"\s*(?:\(?\d{1,3}|[a-zA-Z]|[ivxlcIVXLC]+)\.$")
_NEXT_WORD = re.compile(r"[\s\"'“«(]*([^\W\d_]+)")
_NUMBER = re.compile(r"\s*(?:\d|[IVXLC]+\b)")
SEEN_AHEAD = 80  # code points after a stop that tell whether it ends a sentence
_PAUSES = ("; ", ": ", " – ", " — ", ", ", "\n", " ")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sentence begins, white space included, and where the block does that it stands in."""

    block: int
    start: int


BEGINNING = Place(0, 0)


def sentences(text: str) -> list[Span]:
    """The sentences of a text in order, without the white space around them; none is empty, none overlaps another."""
    return [span for _, span in sentences_from(text, BEGINNING)]


def sentences_from(text: str, place: Place) -> Iterator[tuple[Place, Span]]:
    """The sentences of a text from a place on, each with the place from which it would be found again."""
    for block in _blocks(text, place.block):
        for start, end in _stops(text, Span(max(block.start, place.start), block.end)):
            for piece in _cut(text, start, end):
                span = _trim(text, *piece)
                if span.start < span.end:
                    yield Place(block.start, start), span


def opening(text: str) -> str:
    """What a document says first, its title as a rule: the first sentence, cut at `OPENING`; empty for a blank text.

    Indexed and embedded together with the later chunks it tells what they are about, which they seldom say themselves.
    """
    start = len(text) - len(text.lstrip())
    window = text[start : start + LONGEST]
    first = next(iter(sentences(window)), Span(0, 0))
    return window[first.start : first.end][:OPENING].rstrip()


def is_heading(text: str) -> bool:
    """Whether a sentence is a Markdown heading, which names a subject but states nothing."""
    return _HEADING.match(text) is not None


def _blocks(text: str, first: int) -> Iterator[Span]:
    """Paragraphs, headings, list items, rows: what a sentence cannot reach across. `first`: where one begins."""
    start = position = first
    previous = ""
    for line in text[first:].splitlines(keepends=True):
        if previous and _breaks(previous, line):
            yield Span(start, position)
            start = position
        position += len(line)
        previous = line
    if start < position:
        yield Span(start, position)


def _breaks(previous: str, line: str) -> bool:
    if not line.strip() or not previous.strip() or _HEADING.match(previous) or _NEW_BLOCK.match(line):
        return True
    if _ENDED.search(previous):
        return _first(line).isupper()
    return len(previous.rstrip()) < _SHORT_LINE and (_first(line).isupper() or _first(line).isdigit())


def _stops(text: str, block: Span) -> Iterator[tuple[int, int]]:
    start = block.start
    for match in _STOP.finditer(text, block.start, block.end):
        if _ends(text, start, match, block.end):
            yield start, match.end()
            start = match.end()
    if start < block.end:
        yield start, block.end


def _ends(text: str, start: int, match: re.Match[str], limit: int) -> bool:
    """Whether a stop is the end of the sentence that began at `start`."""
    mark = match.group()
    rest = text[match.end() : min(limit, match.end() + SEEN_AHEAD)]
    following = _first(rest)
    if mark[0] in "。！？" or not following:
        return True
    if following.islower() or (mark.startswith("..") and not following.isupper()):
        return False
    if mark[0] != "." or len(mark) > 1:  # with a closing quote or bracket the stop is the sentence's own
        return not _ENUMERATOR.match(text[start : match.end()])
    return not _ENUMERATOR.match(text[start : match.end()]) and not _abbreviates(_word_before(text, start, match), rest)


def _word_before(text: str, start: int, match: re.Match[str]) -> str:
    found = _WORD_BEFORE.search(text, max(start, match.start() - 40), match.start())
    return found.group(1) if found else ""


def _abbreviates(word: str, rest: str) -> bool:
    """Whether the full stop after a word marks an abbreviation within a sentence that goes on with `rest`."""
    lowered = word.lower().strip(".")
    if lowered in _TITLES or (lowered in _BEFORE_NUMBERS and _NUMBER.match(rest)):
        return True
    following = _NEXT_WORD.match(rest)
    return bool(_INITIALS.match(word)) and not (following and following.group(1).lower() in _STARTERS)


def _first(text: str) -> str:
    """The first character that is not white space, a quote or a bracket; empty when there is none."""
    return text.lstrip(_OPENING)[:1]


def _cut(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    while end - start > LONGEST:
        window = text[start : start + LONGEST]
        at = next((i + len(pause) for pause in _PAUSES if (i := window.rfind(pause)) > LONGEST // 3), LONGEST)
        yield start, start + at
        start += at
    yield start, end


def _trim(text: str, start: int, end: int) -> Span:
    piece = text[start:end]
    left = len(piece) - len(piece.lstrip())
    return Span(start + left, start + len(piece.rstrip())) if piece.strip() else Span(end, end)
