"""Use case: says so when documents are in a language that the embedding model does not know, and what to do."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from llamabda.document_language import document_language
from llamabda.errors import LlamabdaError
from llamabda.iso639 import ANY, named
from llamabda.ports import LanguageDetector

log = logging.getLogger("llamabda.languages")

WORTH_SAYING = 0.05  # of the documents: of fewer some are only taken for what they are not
MULTILINGUAL = "intfloat/multilingual-e5-small"  # an example of a model that knows nearly every language


@dataclass(frozen=True, slots=True)
class LanguageCheck:
    """`knows` gives the languages of the embedding model `model` (see `Embedder.languages`), () while it is not there.

    `others`: what to set for another one, in a user's words, and the languages which that one knows; best first.
    """

    detector: Callable[[], LanguageDetector]
    knows: Callable[[], Sequence[str]]
    model: str
    others: Mapping[str, Sequence[str]]

    def languages(self, texts: Iterable[str]) -> list[str | None]:
        """Of each document, ISO 639-1; None when unsure. Never raises."""
        try:
            detect = self.detector().language
        except LlamabdaError as exc:
            log.warning("the documents' languages are not looked at: %s", exc.message)
            return [None for _ in texts]
        return [document_language(text, detect) for text in texts]

    def notices(self, texts: Sequence[str]) -> list[str]:
        """What whoever trains these documents should be told: nothing, or one sentence or two."""
        if _all(self.knows()):
            return []
        told = self.notice(self.languages(texts))
        return [] if told is None else [told]

    def notice(self, languages: Sequence[str | None]) -> str | None:
        """The same, of documents whose languages are known."""
        unknown = self.unknown(languages)
        if not unknown:
            return None
        counted = _counted(unknown, len(languages))
        return f"{counted}, which {self.model} does not know: answers by sense will be poor. {self.advice(languages)}"

    def unknown(self, languages: Sequence[str | None]) -> dict[str, int]:
        """How many documents are in each language that the embedding model does not know, most first; few are none."""
        knows = self.knows()
        if _all(knows):
            return {}
        found = Counter(code for code in languages if code is not None and code not in knows)
        return {code: n for code, n in found.most_common() if n >= WORTH_SAYING * len(languages)}

    def advice(self, languages: Sequence[str | None]) -> str:
        """What to do where some language is unknown."""
        unknown = self.unknown(languages)

        def served(setting: str) -> int:
            return sum(code in self.others[setting] for code in languages)

        useful = [setting for setting in self.others if any(code in self.others[setting] for code in unknown)]
        if useful:
            return f"Set {max(useful, key=served)}, then run `llamabda reindex`"
        return (
            f"Get a multilingual model (`llamabda models export {MULTILINGUAL} --query-prompt 'query: ' "
            "--document-prompt 'passage: '`, which needs torch), set EMBED_MODEL_NAME to it, then run "
            "`llamabda reindex`"
        )


def _all(knows: Sequence[str]) -> bool:
    """Whether there is no language that a model with these is known not to know."""
    return not knows or ANY in knows


def _counted(unknown: Mapping[str, int], documents: int) -> str:
    """ "12 of 14 documents are in Portuguese (pt)" """
    if documents == 1:
        (code,) = unknown
        return f"The document is in {named(code)}"
    (first, count), *rest = unknown.items()
    sentence = f"{count} of {documents} documents {'is' if count == 1 else 'are'} in {named(first)}"
    return sentence + "".join(f", {n} in {named(code)}" for code, n in rest)
