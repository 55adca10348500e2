"""Which places of a document are looked at, and what their votes make. The detector knows a word of each language."""

from __future__ import annotations

import pytest

from llamabda.document_language import EXCERPT, document_language, excerpts, prose

EN = "the office opens at eight in the morning and closes late. "
PT = "o escritório abre às oito da manhã e fecha bem tarde. "
ES = "la oficina abre a las ocho de la mañana y cierra tarde. "


def by_word(text: str) -> str | None:
    said = {code for code, word in (("en", "the"), ("pt", "fecha"), ("es", "cierra")) if word in text}
    return said.pop() if len(said) == 1 else None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (EN, "en"),
        (PT * 100, "pt"),
        (EN * 60 + PT * 200, "pt"),  # front matter in another language
        (PT * 200 + EN * 60, "pt"),  # an appendix in another language
        (EN * 100 + PT * 50 + EN * 100, "en"),  # a quotation in the middle
        (EN * 100 + PT * 100 + ES * 100, None),  # as much of each
        ("xyz " * 500, None),
        ("", None),
    ],
)
def test_most_places_decide(text, expected):
    assert document_language(text, by_word) == expected


@pytest.mark.parametrize(
    "text",
    [
        "OK",
        "Horário",
        "1234 5678",
        "| nome | preço do produto |\n|---|---|\n| maçã | 1,20 |\n" * 40,
        "José Carlos da Silva\nMaria de Fátima Souza\nAna Lúcia Pereira\n" * 20,
        "x = [f(i) for i in range(10)]; y = {'a': 1}; print(x, y)\n" * 20,
        "2024-01-01 10:00:00,000 [12] 200 OK 0.003\n" * 40,
    ],
)
def test_tables_names_numbers_code_and_single_words_are_not_even_looked_at(text):
    assert list(excerpts(text)) == []


def test_the_cost_does_not_grow_with_the_document():
    assert [len(excerpt) for excerpt in excerpts("\n".join(f"{n} {PT}" for n in range(9_999)))] == [EXCERPT] * 3


def test_a_repeated_line_says_no_more_than_once():
    assert prose(f"{PT}\n{PT}\n  {EN}") == f"{PT.strip()} {EN.strip()}"


def test_the_last_place_is_not_asked_when_the_others_agree():
    asked = []

    def count(text: str) -> str:
        asked.append(text)
        return "pt"

    assert document_language(PT * 200, count) == "pt"
    assert len(asked) == 2
