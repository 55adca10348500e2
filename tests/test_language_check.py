"""What is said of documents in languages that the embedding model does not know."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from llamabda.errors import ConfigurationError
from llamabda.language_check import LanguageCheck
from llamabda.ports import LanguageDetector

OTHERS = {
    "EMBED_MODEL_NAME=english": ("en",),
    "EMBED_MODEL_NAME=both": ("pt", "en"),
    "EMBED_MODEL_NAME=spanish": ("es", "en"),
}


class FirstWord:
    """A text says its language itself."""

    def language(self, text: str) -> str | None:
        word = text.split(maxsplit=1)[0]
        return word if len(word) == 2 else None


def check(
    *knows: str, others: dict[str, tuple[str, ...]] = OTHERS, detector: Callable[[], LanguageDetector] = FirstWord
) -> LanguageCheck:
    return LanguageCheck(detector, lambda: knows, "a-model", others)


def texts(**counts: int) -> list[str]:
    return [f"{code} and then some more letters" for code, n in counts.items() for _ in range(n)]


def test_a_language_that_is_not_known_is_said_once_with_what_to_run():
    assert check("en").notices(texts(pt=12, en=2)) == [
        "12 of 14 documents are in Portuguese (pt), which a-model does not know: answers by sense will be poor. "
        "Set EMBED_MODEL_NAME=both, then run `llamabda reindex`"
    ]


@pytest.mark.parametrize(
    ("counts", "beginning"),
    [
        ({"pt": 1}, "The document is in Portuguese (pt), which"),
        ({"pt": 1, "en": 2}, "1 of 3 documents is in Portuguese (pt), which"),
        ({"pt": 3, "es": 1}, "3 of 4 documents are in Portuguese (pt), 1 in Spanish (es), which"),
    ],
)
def test_the_documents_are_counted(counts, beginning):
    (notice,) = check("en").notices(texts(**counts))
    assert notice.startswith(beginning)


@pytest.mark.parametrize("knows", [("en", "pt"), ("en", "mul"), ("mul",), ()])
def test_nothing_is_said_when_the_model_knows_the_language_or_nobody_knows_what_it_knows(knows):
    assert check(*knows).notices(texts(pt=12, en=2)) == []


def test_nothing_is_said_of_what_nobody_is_sure_about_or_of_very_few():
    assert check("en").notices(texts(unsure=5)) == []
    assert check("en").notices(texts(en=99, ro=1)) == []
    assert check("en").notices([]) == []


def test_the_model_that_serves_most_documents_is_advised():
    assert "EMBED_MODEL_NAME=both" in check("en").advice(["pt", "pt", "es", "en"])
    assert "EMBED_MODEL_NAME=spanish" in check("en").advice(["pt", "es", "es", "en"])


def test_where_no_model_of_the_catalogue_knows_the_language_another_is_advised():
    advice = check("en").advice(["de", "de", "en"])
    assert "`llamabda models export " in advice
    assert "--query-prompt 'query: ' --document-prompt 'passage: '" in advice  # without them that model ranks worse
    assert advice.endswith("set EMBED_MODEL_NAME to it, then run `llamabda reindex`")


def test_a_detector_that_cannot_be_had_hinders_nothing(caplog):
    def absent() -> LanguageDetector:
        raise ConfigurationError("not installed")

    assert check("en", detector=absent).notices(texts(pt=3)) == []
    assert "not installed" in caplog.text
