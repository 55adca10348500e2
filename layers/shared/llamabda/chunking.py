"""Cuts a text into overlapping pieces at sensible places, and says exactly where each one lies."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llamabda.errors import InvalidInput
from llamabda.types import Span

MIN_SIZE = 50  # characters; shorter pieces hold no thought
MAX_SIZE = 20_000  # characters; far beyond what any of the embedding models reads

# The splitting library's time grows with the square of a paragraph's length, so it never sees more than this at once.
WINDOW = 8_192  # characters; 1 MB without a single space then takes 0.2 s instead of minutes

_SURROGATES = re.compile("[\ud800-\udfff]")
_LANDMARK = re.compile(
    r"^(?: {0,3}(?P<heading>#{1,6})(?=[ \t\r\n]|\Z)| {0,3}(?P<fence>`{3,}|~{3,})(?P<info>.*)|(?P<blank>[ \t]*\r?\n))",
    re.MULTILINE,
)
_SPACE = re.compile(r"\s*")
_HEADINGS = re.compile(r"(?: {0,3}#{1,6}(?:[ \t].*)?(?:\r?\n|\Z)\s*)+")


@dataclass(frozen=True, slots=True)
class Chunking:
    """How a document is cut: pieces of at most `size` characters (code points), neighbours sharing up to `overlap`."""

    size: int = 800
    overlap: int = 100

    def __post_init__(self) -> None:
        if not MIN_SIZE <= self.size <= MAX_SIZE:
            raise InvalidInput(
                f"chunk_size is {self.size}; it must be between {MIN_SIZE} and {MAX_SIZE} characters",
                loc=("body", "chunk_size"),
                value=self.size,
            )
        if not 0 <= self.overlap < self.size:
            raise InvalidInput(
                f"chunk_overlap is {self.overlap}; it must be at least 0 and less than chunk_size ({self.size})",
                loc=("body", "chunk_overlap"),
                value=self.overlap,
            )


@dataclass(frozen=True, slots=True)
class _Section:
    """A stretch of Markdown from one heading to the next; `seams` are places in it where blocks end."""

    start: int
    end: int
    seams: tuple[int, ...] = ()


def split(text: str, chunking: Chunking, *, markdown: bool) -> list[Span]:
    """The chunks of a text in order: half-open ranges of code points, none empty or blank, together covering every
    character that is not white space. In Markdown a heading starts a chunk, unless what stands before it is so short
    that both fit into one, and a fenced block is kept whole where it fits.
    """
    text = _SURROGATES.sub("\ufffd", text)  # the library takes valid Unicode only; the offsets stay the same
    if not markdown:
        return list(_pieces(text, _Section(0, len(text)), chunking.size, chunking, markdown=False))
    spans: list[Span] = []
    for section in _grouped(text, _sections(text), chunking.size):
        spans.extend(_section_pieces(text, section, chunking))
    return spans


def _section_pieces(text: str, section: _Section, chunking: Chunking) -> Iterator[Span]:
    """The splitter would leave a heading alone before a long paragraph: it is kept with the first piece of its text."""
    heading = _HEADINGS.match(text, section.start, section.end)
    body = heading.end() if heading else section.start
    lead = body - section.start
    if not 0 < lead <= chunking.size // 4 or body >= section.end or section.end - section.start <= chunking.size:
        yield from _pieces(text, section, chunking.size, chunking, markdown=True)
        return
    seams = section.seams[bisect_right(section.seams, body) :]
    pieces = _pieces(text, _Section(body, section.end, seams), chunking.size - lead, chunking, markdown=True)
    for number, piece in enumerate(pieces):
        yield Span(_past_space(text, section.start, body), piece.end) if number == 0 else piece


def _pieces(text: str, section: _Section, capacity: int, chunking: Chunking, *, markdown: bool) -> Iterator[Span]:
    """Splits a stretch in windows. Where a window ends in the middle of something, its last piece is split again as
    the beginning of the next one, so that the windows leave no trace."""
    overlap = min(chunking.overlap, capacity - 1)
    width = max(WINDOW, 4 * chunking.size)
    start, end = section.start, section.end
    while True:
        start = _past_space(text, start, end)
        if start >= end:
            return
        stop = min(end, start + width)
        seam = _last_seam(section.seams, start + width // 2, stop) if stop < end else end
        window = text[start : seam or stop].rstrip()
        pieces = [(start, window)]
        if len(window) > capacity:
            pieces = [(start + at, piece) for at, piece in _cut(window, capacity, overlap, markdown=markdown)]
        following = seam or stop
        if seam is None and len(pieces) > 1:
            following = pieces.pop()[0]
        for at, piece in pieces:
            if piece.strip():
                yield Span(at, at + len(piece))
        start = following


def _cut(text: str, capacity: int, overlap: int, *, markdown: bool) -> list[tuple[int, str]]:
    """Pieces with their places in the text, by the library."""
    from semantic_text_splitter import MarkdownSplitter, TextSplitter

    if markdown:
        try:
            return MarkdownSplitter(capacity, overlap).chunk_indices(text)
        except BaseException as exc:
            # 0.33 panics on rare mixtures of tables, fences and wide characters; a panic has no class to name
            if type(exc).__name__ != "PanicException":
                raise
    return TextSplitter(capacity, overlap).chunk_indices(text)


def _past_space(text: str, start: int, end: int) -> int:
    found = _SPACE.match(text, start, end)
    return found.end() if found else start


def _last_seam(seams: Sequence[int], after: int, upto: int) -> int | None:
    place = bisect_right(seams, upto)
    return seams[place - 1] if place and seams[place - 1] > after else None


def _sections(text: str) -> Iterator[_Section]:
    """One per heading, and one for what stands before the first. Headings and blank lines inside fences are text."""
    start, fence = 0, ""
    seams: list[int] = []
    for mark in _LANDMARK.finditer(text):
        if ticks := mark["fence"]:
            if not fence:
                fence = "" if ticks[0] == "`" and "`" in mark["info"] else ticks  # an inline code span, not a fence
            elif ticks.startswith(fence) and not mark["info"].strip():
                fence = ""
        elif fence:
            continue
        elif mark["heading"]:
            if mark.start() > start:
                yield _Section(start, mark.start(), tuple(seams))
            start, seams = mark.start(), []
        else:
            seams.append(mark.end())
    if start < len(text):
        yield _Section(start, len(text), tuple(seams))


def _grouped(text: str, sections: Iterator[_Section], size: int) -> Iterator[_Section]:
    """Joins a section that is nothing but a heading, or shorter than a quarter of a chunk, with the one that follows,
    so that a title stays with its text and a list of tiny sections does not become a swarm of tiny chunks."""
    held: _Section | None = None
    for section in sections:
        if held is None:
            held = section
            continue
        length = held.end - held.start
        bare = length <= size and _HEADINGS.fullmatch(text, held.start, held.end)
        if bare or (length < size // 4 and section.end - held.start <= size):
            held = _Section(held.start, section.end, (*held.seams, *section.seams))
        else:
            yield held
            held = section
    if held is not None:
        yield held
