"""From text to index terms."""

from __future__ import annotations

import pytest

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
