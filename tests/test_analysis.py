"""From text to index terms."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import snowballstemmer

from llamabda import analysis
from llamabda.analysis import query_terms, tokens, words


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("Férias COLETIVAS", ["feria", "coletiva"]),
        ("T1406, M1006!", ["t1406", "m1006"]),
        ("snake_case don't", ["snake", "case", "don", "t"]),
        ("", []),
        ("\x00 \ud800", []),
        ("ﬁne Ⅷ", ["fine", "viii"]),
        ("x" * 500, ["x" * 64]),
    ],
)
def test_terms_are_folded_stemmed_words(text, terms):
    assert tokens(text) == terms


def test_words_keep_their_accents_and_endings():
    assert words("Férias coletivas") == ["férias", "coletivas"]


def test_a_question_s_terms_are_distinct_and_know_whether_they_carry_content():
    assert query_terms("When is the leave, and the leave of whom?") == {
        "when": False,
        "i": False,
        "the": False,
        "leav": True,
        "and": False,
        "of": False,
        "whom": False,
    }


def test_threads_that_stem_at_once_get_the_same_terms():
    words = [f"{letter}{stem}{ending}" for letter in "bcdfgklmnprstvw" for stem in ("elat", "ounti", "inali", "oppi")
             for ending in ("ational", "izations", "fulness", "ingly", "ed", "ement", "iveness")]  # fmt: skip
    alone = {word: snowballstemmer.stemmer("porter").stemWord(word) for word in words}
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(5):
            analysis._term.cache_clear()
            with ThreadPoolExecutor(8) as pool:
                found = pool.map(lambda n: tokens(" ".join(words[n:] + words[:n])), range(0, len(words), 10))
            for n, terms in zip(range(0, len(words), 10), found, strict=True):
                assert terms == [alone[word] for word in words[n:] + words[:n]]
    finally:
        sys.setswitchinterval(before)
        analysis._term.cache_clear()
