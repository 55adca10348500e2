"""Whether an exported model gives the vectors of the original."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from llamabda.adapters.sentence_transformers import UNRELATED
from llamabda.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llamabda.export.original import Original
    from llamabda.ports import Embedder

EXACT = 0.9999  # least cosine of a float32 graph: below, it computes something else
# Of int8. The packaged MiniLM has .991 and .986.
CLOSE_MEAN = 0.98
CLOSE_ORDER = 0.97
NEIGHBOURS = 3

# Beside the unrelated ones: texts on one subject in several languages, of all lengths, and what is hardly a text.
DOCUMENTS = (
    "The warranty covers repairs for two years from the date of purchase.",
    "Repairs are free of charge during the first twenty-four months.",
    "A garantia cobre reparos por dois anos a partir da data da compra.",
    "La garantía cubre las reparaciones durante dos años desde la compra.",
    "La garantie couvre les réparations pendant deux ans après l'achat.",
    "Die Garantie deckt Reparaturen zwei Jahre lang ab dem Kaufdatum.",
    "Гарантия действует два года со дня покупки.",
    "保修期自购买之日起为两年。",
    "保証期間はご購入日から二年間です。",
    "يغطي الضمان الإصلاحات لمدة عامين من تاريخ الشراء.",
    "O aluno precisa frequentar setenta e cinco por cento das aulas.",
    "Students must attend three quarters of all lessons.",
    "La asistencia a clase es obligatoria para todos los alumnos.",
    "The heart pumps blood through arteries and veins.",
    "O coração bombeia o sangue pelas artérias e veias.",
    "Blood pressure rises with age and with salt in the diet.",
    "The aqueduct carried water from the hills to the city for three centuries.",
    "Roman engineers built bridges, roads and aqueducts.",
    "def add(a, b):\n    return a + b",
    "SELECT name, price FROM products WHERE price > 100 ORDER BY price;",
    "Error 0x80070005: access is denied. Run the installer as administrator.",
    "To reset the router, hold the button on its back for ten seconds.",
    "If the network does not answer, restart the router and wait for the green light.",
    "Invoice no. 2024-117: 3 x paper A4, 12.50 EUR; 1 x toner, 89.00 EUR; due in 30 days.",
    "Jupiter is the largest planet; its moons Io and Europa were seen by Galileo in 1610.",
    "The recipe wants 200 g of flour, two eggs, a pinch of salt and half a litre of milk.",
    "OK",
    "42",
    "?!",
    "",
    "👍🎉",
    "warranty",
    "The committee met in spring. " * 12,
    "Alternating current changes its direction fifty times a second, direct current never does. " * 6,
    "A long text goes on beyond what the model reads, and only its beginning decides. " * 60,
)
QUERIES = (
    "How long is the warranty?",
    "Quanto tempo dura a garantia?",
    "¿Cuántas clases puedo faltar?",
    "what raises blood pressure",
    "restart router",
    "Who saw the moons of Jupiter first?",
    "Wie viel Mehl braucht das Rezept?",
    "Who built aqueducts?",
    "toner",
)
LONGEST = 4_000  # characters: a model of 8,192 tokens would compute for minutes


@dataclass(frozen=True, slots=True)
class Vectors:
    """Of DOCUMENTS and UNRELATED, and of QUERIES; (n, dim) float32, unit length."""

    documents: NDArray[np.float32]
    queries: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Agreement:
    """Cosines of the vectors of one text, over all texts; and how alike the similarities between texts are ordered."""

    texts: int
    mean: float
    least: float
    order: float  # Spearman's rank correlation over the cosines of all pairs, in [-1, 1]
    neighbours: float  # share of the nearest 3 documents of a text that are the same, in [0, 1]

    def __str__(self) -> str:
        return (
            f"cosine {self.mean:.4f} on average and {self.least:.4f} at least over {self.texts} texts, "
            f"rank correlation of similarities {self.order:.4f}, same nearest texts {self.neighbours:.0%}"
        )


def vectors_of(original: Original) -> Vectors:
    return Vectors(original.vectors(_documents(), "document"), original.vectors(QUERIES, "query"))


def compare(embedder: Embedder, expected: Vectors) -> Agreement:
    """ModelError where shapes differ or numbers are none."""
    documents = embedder.embed_documents(_documents())
    queries = np.stack([embedder.embed_query(text) for text in QUERIES])
    found, wanted = np.concatenate([documents, queries]), np.concatenate([expected.documents, expected.queries])
    if found.shape != wanted.shape or not np.isfinite(found).all():
        raise ModelError(f"the exported model gives vectors of shape {found.shape}, the original {wanted.shape}")
    cosines = (found * wanted).sum(axis=1)
    mine, theirs = found @ documents.T, wanted @ expected.documents.T
    return Agreement(
        texts=len(found),
        mean=round(float(cosines.mean()), 6),
        least=round(float(cosines.min()), 6),
        order=round(_rank_correlation(mine, theirs), 6),
        neighbours=round(_same_neighbours(mine, theirs), 6),
    )


def require_the_same(agreement: Agreement, name: str) -> None:
    """ModelError unless a float32 graph computes what the original does."""
    if not agreement.least >= EXACT:
        raise ModelError(
            f"{name} cannot be exported: its graph does not give its vectors ({agreement}); "
            "EMBED_BACKEND=sentence_transformers runs it as it is"
        )


def close_enough(agreement: Agreement) -> bool:
    """Whether int8 may stand for the original."""
    return agreement.mean >= CLOSE_MEAN and agreement.order >= CLOSE_ORDER


def _documents() -> list[str]:
    return [text[:LONGEST] for text in (*DOCUMENTS, *UNRELATED)]


def _off_diagonal(similarities: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Without the similarity of a document to itself, which is 1 in every model."""
    keep = np.ones(similarities.shape, np.bool_)
    np.fill_diagonal(keep, val=False)  # documents come first, in both directions
    return keep


def _rank_correlation(mine: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    keep = _off_diagonal(mine)
    a, b = (np.argsort(np.argsort(each[keep])).astype(np.float64) for each in (mine, theirs))
    return float(np.corrcoef(a, b)[0, 1])


def _same_neighbours(mine: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    keep = _off_diagonal(mine)
    nearest = [np.argsort(-np.where(keep, each, -2), axis=1)[:, :NEIGHBOURS] for each in (mine, theirs)]
    pairs = zip(*nearest, strict=True)
    return float(np.mean([len(np.intersect1d(a, b)) / NEIGHBOURS for a, b in pairs]))
