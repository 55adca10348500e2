"""Which language a document is in, by what its prose says in several places. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator

EXCERPT = 800  # characters of prose looked at in one place: detectors gain nothing beyond
LOOKED_AT = 3_000  # characters of the document that they are taken from
SHORT = 1_000  # characters of a document that is one place
LEAST_LETTERS = 24  # fewer say nothing
MARKS = 0.3  # of a line's characters that are not white space: above it is a table, numbers or code
CAPITALISED = 0.6  # of a line's words: above it is a list of names or a title
# The middle first: documents often begin and end with what is in another language, such as licences and summaries.
PLACES = (1 / 2, 5 / 6, 1 / 6)

_MARK = re.compile(r"[!-@\[-`{-~]")  # what ASCII has that is no letter


def document_language(text: str, detect: Callable[[str], str | None]) -> str | None:
    """The language of most of the places that say one; None when none does, or two do equally often.

    `detect` gives the language of an excerpt, or None. The cost does not grow with the document.
    """
    votes: Counter[str] = Counter()
    for excerpt in excerpts(text):
        found = detect(excerpt)
        if found is not None:
            votes[found] += 1
            if votes[found] > len(PLACES) // 2:
                return found
    if not votes:
        return None
    (best, most), *others = votes.most_common(2)
    return None if others and others[0][1] == most else best


def excerpts(text: str) -> Iterator[str]:
    """Prose of a document, at most `EXCERPT` characters from each of at most three places; none where there is none."""
    if len(text) <= SHORT:
        pieces = [text]
    else:
        width = min(LOOKED_AT, len(text) // len(PLACES))
        starts = (max(0, int(place * len(text)) - width // 2) for place in PLACES)
        pieces = [text[start : start + width] for start in starts]
    for piece in pieces:
        found = prose(piece)[:EXCERPT]
        if sum(map(str.isalpha, found)) >= LEAST_LETTERS:
            yield found


def prose(text: str) -> str:
    """The lines that look like sentences, each once, joined by spaces: no tables, numbers, code or lists of names."""
    lines = dict.fromkeys(map(str.strip, text.splitlines()))
    return " ".join(line for line in lines if _is_prose(line))


def _is_prose(line: str) -> bool:
    if line.startswith("|"):
        return False
    words = [word for word in line.split() if word[0].isalpha()]
    if not words or sum(word[0].isupper() for word in words) > CAPITALISED * len(words):
        return False
    return len(_MARK.findall(line)) <= MARKS * len("".join(line.split()))
