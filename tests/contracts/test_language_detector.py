"""What every LanguageDetector promises, on real passages."""

from __future__ import annotations

import json

import pytest

from llamabda.adapters.kreuzberg_language import KreuzbergLanguageDetector
from llamabda.document_language import document_language


@pytest.fixture(scope="module")
def detector():
    return KreuzbergLanguageDetector()


def passages(data_dir, name: str) -> list[str]:
    lines = (data_dir / "qa" / name / "contexts.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


@pytest.mark.parametrize(("name", "expected"), [("faquad", "pt"), ("squad2-dev", "en"), ("xquad-es", "es")])
@pytest.mark.parametrize("size", [None, 500, 2_000])
def test_real_passages_are_told_apart_and_none_is_taken_for_another_language(detector, data_dir, name, expected, size):
    texts = passages(data_dir, name)
    if size is not None:
        whole = "\n".join(texts)
        texts = [whole[at : at + size] for at in range(0, len(whole) - size, size)]
    found = [document_language(text, detector.language) for text in texts]
    assert set(found) <= {expected, None}
    assert found.count(expected) >= 0.99 * len(found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Das Büro öffnet um acht Uhr morgens und schließt um achtzehn Uhr.", "de"),
        ("Le bureau ouvre à huit heures du matin et ferme à dix-huit heures.", "fr"),
        ("Офис открывается в восемь утра и закрывается в шесть вечера.", "ru"),
        ("办公室早上八点开门,晚上六点关门。", "zh"),
        ("オフィスは朝八時に開きます。", "ja"),
    ],
)
def test_other_languages_have_their_codes_of_two_letters(detector, text, expected):
    assert detector.language(text) == expected


@pytest.mark.parametrize(
    "text", ["", " \n", "\0", "\ud83d", "OK", "12345", "👩‍👩‍👧", "T1406 M1006", "a" * 10_000], ids=ascii
)
def test_any_string_may_be_asked_and_says_nothing_where_nothing_is_said(detector, text):
    assert detector.language(text) is None
