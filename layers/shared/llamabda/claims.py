"""Whether a passage says what a generated sentence claims. Pure.

A small model writes fluent sentences that nothing supports. One is believed only when a passage holds its words and its
sense (the cosine of sentence and passage, which the caller brings), every name in it, every number near the words it
belongs to, and does not negate where the sentence affirms, or the other way round.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from llamabda.language import is_function_word, language

# Share of the claim's content terms that the passage must hold: one foreign word in a sentence of the usual length is
# enough to make it untrue, so none is let through there.
WORDS_BOUND = 0.95
NEAR_WORDS_BOUND = 0.6  # share that its best sentence and the ones beside it must hold: scattered words say nothing
SENSE_BOUND = 0.6  # cosine of the claim and the passage's nearest sentence, above the embedder's background
FEWEST_TERMS = 2  # a claim with less content ("Yes.", "The passage.") says nothing that could be checked

_NUMBER = re.compile(r"\d+(?:[.,:/]\d+)*")
_GROUPED = re.compile(r"\d{1,3}(?:[.,]\d{3})+")
_WORD = re.compile(r"[^\W_]+(?:['’.&-][^\W_]+)*")
_QUOTED = re.compile(r"[\"“«]([^\"“”«»]{2,200})[\"”»]")
_NOT_EN = re.compile(
    r"\b(?:not|no|never|none|nobody|nothing|neither|nor|without|cannot|unable|lacks?|fail(?:s|ed)?)\b|n['’]t\b", re.I
)
_NOT_PT = re.compile(r"\b(?:não|nunca|jamais|nenhum|nenhuma|ninguém|nada|nem|sem|tampouco)\b", re.I)
_NUMERALS = {
    word: value
    for value, words in {
        "2": "two dois duas", "3": "three três tres", "4": "four quatro", "5": "five cinco", "6": "six seis",
        "7": "seven sete", "8": "eight oito", "9": "nine nove", "10": "ten dez",
        "11": "eleven onze", "12": "twelve doze",
        "13": "thirteen treze", "14": "fourteen quatorze catorze", "15": "fifteen quinze", "16": "sixteen dezesseis",
        "17": "seventeen dezessete", "18": "eighteen dezoito", "19": "nineteen dezenove", "20": "twenty vinte",
        "30": "thirty trinta", "40": "forty quarenta", "50": "fifty cinquenta", "60": "sixty sessenta",
        "70": "seventy setenta", "80": "eighty oitenta", "90": "ninety noventa", "100": "hundred cem",
        "1000": "thousand mil",
    }.items()
    for word in words.split()
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Text:
    """A text with its index terms. `content`: those of them that no function word gave."""

    text: str
    terms: tuple[str, ...]
    content: frozenset[str]


def supports(claim: Text, passage: Text, parts: Sequence[Text], nearness: Sequence[float]) -> float:
    """How well a passage supports a claim, in (0, 1]; 0 when it does not.

    `parts` are the passage's sentences in order; `nearness[i]` is the cosine of the claim and `parts[i]`, above the
    embedder's background.
    """
    content = {term for term in claim.content if not any(map(str.isdigit, term)) and term not in _NUMERALS}
    if len(content) < FEWEST_TERMS or not parts:
        return 0.0
    best = max(range(len(parts)), key=lambda i: _share(content, set(parts[i].terms)) + nearness[i])
    around = parts[max(0, best - 1) : best + 2]
    near = _share(content, {term for part in around for term in part.terms})
    held = _share(content, set(passage.terms))
    sense = max(nearness)
    if held < WORDS_BOUND or near < NEAR_WORDS_BOUND or sense < SENSE_BOUND:
        return 0.0
    if negates(claim.text) != negates(parts[best].text) or foreign_names(claim.text, passage.text):
        return 0.0
    if not numbers(claim.text) <= {number for part in around for number in numbers(part.text)}:
        return 0.0
    return 0.4 * held + 0.6 * min(1.0, sense)


def numbers(text: str) -> set[str]:
    """The numbers of a text, in figures or words, in one form: "1,000" and "1.000" are "1000", "2,5" is "2.5"."""
    found = set()
    for match in _NUMBER.finditer(text):
        digits = match.group()
        found.add(re.sub(r"[.,]", "", digits) if _GROUPED.fullmatch(digits) else digits.replace(",", "."))
    return found | {_NUMERALS[word] for word in re.findall(r"[^\W\d_]+", text.lower()) if word in _NUMERALS}


def foreign_names(text: str, passage: str) -> list[str]:
    """The names and quotations of a text that a passage does not hold.

    A name is a word with a capital in it, at the head of a sentence only when it is no function word.
    """
    held = {
        _fold(word)
        for match in _WORD.finditer(passage)
        for word in (match.group(), *re.split(r"['’.&-]", match.group()))
    }
    missing = [
        word
        for word in (match.group() for match in _WORD.finditer(text))
        if word != word.lower() and not is_function_word(word) and not _holds(held, word)
    ]
    folded = " ".join(_fold(passage).split())
    return missing + [
        quoted for quoted in _QUOTED.findall(text) if " ".join(_fold(quoted).split()).strip(" .,") not in folded
    ]


def negates(text: str) -> bool:
    """Whether a sentence denies something. "no" counts in English only: in Portuguese it means "in the"."""
    return bool((_NOT_PT if language(text) == "pt" else _NOT_EN).search(text))


def _share(content: Collection[str], held: Collection[str]) -> float:
    return sum(term in held for term in content) / len(content)


def _holds(held: Collection[str], word: str) -> bool:
    return _fold(word) in held or all(_fold(part) in held for part in re.split(r"['’.&-]", word) if len(part) > 1)


def _fold(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))
