"""From text to index terms: done here once, so that every index and every query speak of the same terms.

Words are runs of letters and digits, compatibility-folded (NFKC), lower-cased, without diacritics ("Férias" and
"ferias" meet), and reduced to their Porter stem. One analysis serves every language: measured over English and
Portuguese collections it does as well as one stemmer per language, and nobody has to guess the language of a question.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from functools import lru_cache

import snowballstemmer

from llamabda.language import is_function_word

_WORD = re.compile(r"[^\W_]+")
_STEMMING = threading.Lock()  # the stemmer keeps the word it works on: two threads at once would mix theirs
_MAX_TERM = 64  # code points; what is longer is data (base64, hashes) that nobody searches for in words


def tokens(text: str) -> list[str]:
    """The index terms of a text, in order, repeated as often as they occur."""
    return [_term(word) for word in words(text)]


def query_terms(text: str) -> dict[str, bool]:
    """The distinct terms of a question, in order, and whether each carries content ("the", "when", "qual" do not)."""
    found: dict[str, bool] = {}
    for word in words(text):
        term = _term(word)
        found[term] = found.get(term, False) or not is_function_word(word)
    return found


def words(text: str) -> list[str]:
    """The words of a text, compatibility-folded and lower-cased, not stemmed."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


@lru_cache(maxsize=200_000)
def _term(word: str) -> str:
    plain = "".join(c for c in unicodedata.normalize("NFKD", word) if not unicodedata.combining(c))[:_MAX_TERM]
    if not plain.isascii():
        return plain
    with _STEMMING:
        return str(_stemmer().stemWord(plain))


@lru_cache(maxsize=1)
def _stemmer() -> snowballstemmer.stemmer:
    return snowballstemmer.stemmer("porter")
