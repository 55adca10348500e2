from __future__ import annotations

import pytest

from llamabda.analysis import tokens, words
from llamabda.claims import Text, foreign_names, negates, numbers, supports
from llamabda.language import is_function_word
from llamabda.sentences import sentences

PASSAGE = (
    "The Normans settled in northern France in 911 under their leader Rollo. King Charles III gave them land. "
    "They did not keep their Norse language. About 1,500 of them came with three ships."
)


def text(value: str) -> Text:
    terms = tuple(tokens(value))
    content = frozenset(t for t, w in zip(terms, words(value), strict=True) if not is_function_word(w))
    return Text(value, terms, content)


def support(claim: str, passage: str = PASSAGE, *, near: float = 0.9) -> float:
    parts = [text(passage[s.start : s.end]) for s in sentences(passage)]
    return supports(text(claim), text(passage), parts, [near] * len(parts))


@pytest.mark.parametrize(
    "claim",
    [
        "The Normans settled in northern France in 911.",
        "Rollo was the leader of the Normans.",
        "About 1500 Normans came with 3 ships.",
        "The Normans did not keep their Norse language.",
    ],
)
def test_what_the_passage_says_is_supported(claim: str) -> None:
    assert 0 < support(claim) <= 1


@pytest.mark.parametrize(
    "claim",
    [
        "The Normans settled in northern France in 912.",  # another number
        "The Normans settled in northern Spain in 911.",  # another name
        "About 1,500 Normans came with four ships.",  # a number in words
        "The Normans did not settle in northern France in 911.",  # denied
        "The Normans kept their Norse language.",  # affirmed
        "Harald was the leader of the Normans.",  # a name at the head
        'They called the land "Terra Nova" and kept their Norse language.',  # a quotation
        "Penguins eat fish near cold water.",  # other words
        "Yes.",  # nothing that could be checked
        "",
    ],
)
def test_what_the_passage_does_not_say_is_not_supported(claim: str) -> None:
    assert support(claim) == 0.0


def test_the_same_words_with_another_sense_are_not_supported() -> None:
    assert support("The Normans settled in northern France in 911.", near=0.1) == 0.0


def test_a_passage_without_sentences_supports_nothing() -> None:
    assert supports(text("The Normans settled."), text(""), [], []) == 0.0


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1,000 and 1.000 and 1000", {"1000"}),
        ("2,5 or 2.5", {"2.5"}),
        ("ten, dez, 10", {"10"}),
        ("at 10:30 on 3/4/2020", {"10:30", "3/4/2020"}),
        ("the 20th", {"20"}),
        ("none here", set()),
    ],
)
def test_numbers_have_one_form(value: str, expected: set[str]) -> None:
    assert numbers(value) == expected


@pytest.mark.parametrize(
    ("value", "passage", "expected"),
    [
        ("In Lisbon, Ana works.", "ana lives in lisbon", []),
        ("However, Bruno works.", "Ana works", ["Bruno"]),
        ("São João é longe.", "fica em sao joao", []),
        ("NASA's plan", "the NASA plan", []),
        ("It is “very cold” there.", "it was very cold there", []),
        ("It is “very hot” there.", "it was very cold there", ["very hot"]),
    ],
)
def test_names_and_quotations_must_be_in_the_passage(value: str, passage: str, expected: list[str]) -> None:
    assert foreign_names(value, passage) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("It is not so.", True),
        ("It isn't so.", True),
        ("It is so.", False),
        ("Ele não foi.", True),
        ("Ele está no Brasil.", False),
        ("There is no such thing.", True),
    ],
)
def test_denials_are_seen_in_both_languages(value: str, expected: bool) -> None:
    assert negates(value) == expected
