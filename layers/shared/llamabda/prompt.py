"""What the model is asked: a fixed instruction, the numbered passages, the question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from llamabda.types import Prompt

Language: TypeAlias = Literal["en", "pt"]


@dataclass(frozen=True, slots=True)
class _Wording:
    system: str
    question: str


# Short on purpose: a model of 135M parameters follows the first few words and loses the rest. Never put anything into
# `system` that varies: its state is kept from one question to the next.
_WORDINGS: dict[Language, _Wording] = {
    "en": _Wording(
        system=(
            "Answer the question in one or two sentences, using only the numbered passages. "
            "After each sentence put the number of its passage, like [1]. "
            "If the passages do not say it, answer: I don't know."
        ),
        question="Question: {question}",
    ),
    "pt": _Wording(
        system=(
            "Responda à pergunta em uma ou duas frases, usando apenas os trechos numerados. "
            "Depois de cada frase, ponha o número do trecho, como [1]. "
            "Se os trechos não disserem, responda: Não sei."
        ),
        question="Pergunta: {question}",
    ),
}


def build(question: str, passages: Sequence[str], *, language: Language) -> Prompt:
    """Passages are numbered from 1 in the order given, best first: `[n]` in the answer names the n-th."""
    wording = _WORDINGS[language]
    return Prompt(
        system=wording.system,
        passages=tuple(f"[{n}] {_one_paragraph(passage)}" for n, passage in enumerate(passages, 1)),
        question=wording.question.replace("{question}", question.strip()),
    )


def _one_paragraph(passage: str) -> str:
    """White space is joined, so that an empty line always means the next passage."""
    return " ".join(passage.split())
