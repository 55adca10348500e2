"""Texts and questions to measure with: real ones from the evaluation data, else from this project's own pages."""

from __future__ import annotations

import json
import os
import random
import re
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_MIN_WORDS, _MAX_WORDS = 20, 160  # of a text
_QUESTION_WORDS = range(10, 21)


@dataclass(frozen=True, slots=True)
class Corpus:
    """The same on every run: whatever is drawn from it is drawn with a fixed seed."""

    name: str
    documents: tuple[str, ...]
    questions: tuple[str, ...]  # of 10 to 20 words

    def texts(self, count: int) -> list[str]:
        """Beginnings of documents, of 20 to 160 words; documents come again, cut differently, when there are fewer."""
        draw = random.Random(1)
        words = [document.split() for document in self.documents]
        return [" ".join(words[at % len(words)][: draw.randint(_MIN_WORDS, _MAX_WORDS)]) for at in range(count)]

    def windows(self, count: int, *, documents: int, words: int = 120) -> list[tuple[int, str]]:
        """(document number, piece of it) from the first `documents`: about what a chunk of 800 characters holds."""
        draw = random.Random(2)
        split = [document.split() for document in self.documents[:documents]]
        pieces = []
        for at in range(count):
            number = at % len(split)
            first = draw.randrange(max(1, len(split[number]) - words))
            pieces.append((number, " ".join(split[number][first : first + words])))
        return pieces

    def answerable(self, count: int, *, documents: int) -> list[str]:
        """Questions in the words of `windows`: whoever holds those finds something to answer with."""
        pieces = self.windows(count, documents=documents)
        return [f"What is said about {' '.join(text.split()[: _QUESTION_WORDS.start])}?" for _, text in pieces]


def load(folder: Path | None = None) -> Corpus:
    """From `folder` (default: LLAMABDA_DATA, else ../shared/data), or from this project's own Markdown."""
    data = folder or Path(os.environ.get("LLAMABDA_DATA") or _ROOT.parent / "shared" / "data")
    return _evaluation_data(data) if (data / "retrieval" / "scifact" / "corpus.jsonl").is_file() else _own_pages()


def _evaluation_data(data: Path) -> Corpus:
    abstracts = [f"{row['title']} {row['text']}" for row in _rows(data / "retrieval/scifact/corpus.jsonl")]
    claims = [row["text"] for row in _rows(data / "retrieval/scifact/queries.jsonl")]
    asked = [row["question"] for row in _rows(data / "qa/squad2-dev/questions.jsonl")]
    draw = random.Random(3)
    questions = [text for text in claims + asked if len(text.split()) in _QUESTION_WORDS]
    draw.shuffle(questions)
    long_enough = [text for text in abstracts if len(text.split()) >= _MAX_WORDS]
    draw.shuffle(long_enough)
    return Corpus("scifact abstracts, scifact and squad2 questions", tuple(long_enough), tuple(questions))


def _own_pages() -> Corpus:
    pages = sorted(
        [*_ROOT.glob("*.md"), *_ROOT.glob("docs/**/*.md"), *_ROOT.glob("layers/shared/llamabda/samples/*.md")]
    )
    words = " ".join(page.read_text("utf-8") for page in pages).split()
    documents = [" ".join(words[at : at + 2 * _MAX_WORDS]) for at in range(0, len(words) - _MAX_WORDS, _MIN_WORDS)]
    sentences = [" ".join(part.split()) for part in re.split(r"(?<=[.?!])\s", " ".join(words))]
    questions = [text for text in sentences if len(text.split()) in _QUESTION_WORDS]
    return Corpus("this project's own pages", tuple(documents), tuple(questions))


def _rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
