from __future__ import annotations

import pytest

from llamabda.iso639 import ANY, NAMES, codes, named, short


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("en", ("en",)),
        (["pt", "en"], ("pt", "en")),
        (["pt-BR", "pt_PT", "PT", "por"], ("pt",)),
        (["zho", "cmn", "nob", "pes"], ("zh", "no", "fa")),
        ([False], ("no",)),  # YAML's reading of an unquoted `no`
        ("multilingual", (ANY,)),
        (["en", "mul"], ("en", ANY)),
        (["english", "code", 7, None, ""], ()),
        ([], ()),
        (None, ()),
    ],
)
def test_a_model_s_languages_are_understood_in_every_usual_form(said, expected):
    assert codes(said) == expected


def test_codes_are_told_from_words():
    assert short("spa") == "es"
    assert short("xyz") is None
    assert all(len(code) == 2 and short(code) == code for code in NAMES)


def test_a_language_is_named_for_people():
    assert named("pt") == "Portuguese (pt)"
    assert named("xx") == "xx"
