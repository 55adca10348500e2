"""Immutable, searchable pieces of a collection: a matrix of vectors and an inverted index, as plain arrays.

A segment is a cache of rows that live in SQLite. Large ones are kept as memory-mapped files, so that opening a
collection reads nothing and several processes share the pages.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llamabda.adapters.sqlite.scan import quantize

K1 = 1.2  # BM25 term saturation and
B = 0.75  # length normalisation: the values that Lucene, and so OpenSearch, uses by default
_FORMAT = 3


@dataclass(frozen=True, slots=True)
class Segment:
    """n rows, m distinct terms, p postings. Rows stand in order of `ids`."""

    ids: NDArray[np.int64]  # (n,) row ids in SQLite, ascending
    numbers: NDArray[np.int64]  # (n,) the generation that each row belongs to, as SQLite numbers it
    vectors: NDArray[np.float32]  # (n, dim) unit length
    codes: NDArray[np.int8]  # (n, dim) the same in 8 bits: vector = scale * code + residual
    scales: NDArray[np.float32]  # (n,)
    residuals: NDArray[np.float32]  # (n,) length of the residual
    lengths: NDArray[np.float32]  # (n,) terms per row
    terms: NDArray[np.uint64]  # (m,) hashes, ascending
    starts: NDArray[np.int64]  # (m + 1,) where each term's postings begin
    rows: NDArray[np.uint32]  # (p,) ascending within a term
    counts: NDArray[np.uint16]  # (p,) occurrences of the term in the row

    def __len__(self) -> int:
        return len(self.ids)

    def postings(self, term: int) -> tuple[NDArray[np.uint32], NDArray[np.uint16]]:
        """Rows that hold a term and how often, both (k,)."""
        at = int(np.searchsorted(self.terms, np.uint64(term)))
        if at == len(self.terms) or int(self.terms[at]) != term:
            return self.rows[:0], self.counts[:0]
        part = slice(int(self.starts[at]), int(self.starts[at + 1]))
        return self.rows[part], self.counts[part]


def term_hash(term: str) -> int:
    """64 bits that stand for a term: no dictionary to keep; two terms of a million collide with a chance of 3e-8."""
    return int.from_bytes(blake2b(term.encode(), digest_size=8).digest(), "little")


def pack_terms(terms: Sequence[str]) -> tuple[bytes, int]:
    """The bag of a row's terms as bytes (k hashes, then k counts) and the number of terms."""
    counts: dict[str, int] = {}
    for term in terms:
        counts[term] = counts.get(term, 0) + 1
    hashes = np.fromiter((term_hash(term) for term in counts), np.uint64, len(counts))
    numbers = np.minimum(np.fromiter(counts.values(), np.int64, len(counts)), 65535).astype(np.uint16)
    return hashes.tobytes() + numbers.tobytes(), len(terms)


def build(
    ids: Sequence[int], numbers: Sequence[int], vectors: Sequence[bytes], bags: Sequence[bytes], lengths: Sequence[int]
) -> Segment:
    """A segment from rows as they stand in SQLite; vectors are little-endian float32."""
    n = len(ids)
    sizes = np.fromiter((len(bag) // 10 for bag in bags), np.int64, n)
    hashes = np.frombuffer(b"".join(bag[: len(bag) // 10 * 8] for bag in bags), np.uint64)
    counts = np.frombuffer(b"".join(bag[len(bag) // 10 * 8 :] for bag in bags), np.uint16)
    rows = np.repeat(np.arange(n, dtype=np.uint32), sizes)
    matrix = np.frombuffer(b"".join(vectors), np.float32).reshape(n, -1)
    owners = np.array(numbers, np.int64)
    return _assemble(np.array(ids, np.int64), owners, matrix, np.array(lengths, np.float32), hashes, rows, counts)


def merge(segments: Sequence[Segment], alive: Sequence[NDArray[np.bool_]]) -> Segment:
    """One segment of the rows that are still alive."""
    hashes, rows, counts = [], [], []
    base = 0
    for segment, mask in zip(segments, alive, strict=True):
        keep = mask[segment.rows]
        places = np.cumsum(mask, dtype=np.int64) - 1 + base
        hashes.append(np.repeat(segment.terms, np.diff(segment.starts))[keep])
        rows.append(places[segment.rows[keep]].astype(np.uint32))
        counts.append(segment.counts[keep])
        base += int(mask.sum())
    pairs = list(zip(segments, alive, strict=True))
    return _assemble(
        np.concatenate([segment.ids[mask] for segment, mask in pairs]),
        np.concatenate([segment.numbers[mask] for segment, mask in pairs]),
        np.concatenate([segment.vectors[mask] for segment, mask in pairs]),
        np.concatenate([segment.lengths[mask] for segment, mask in pairs]),
        np.concatenate(hashes),
        np.concatenate(rows),
        np.concatenate(counts),
    )


def _assemble(
    ids: NDArray[np.int64],
    numbers: NDArray[np.int64],
    vectors: NDArray[np.float32],
    lengths: NDArray[np.float32],
    hashes: NDArray[np.uint64],
    rows: NDArray[np.uint32],
    counts: NDArray[np.uint16],
) -> Segment:
    order = np.argsort(hashes, kind="stable")  # stable: rows stay ascending within a term
    terms, first = np.unique(hashes[order], return_index=True)
    starts = np.append(first, len(hashes)).astype(np.int64)
    codes, scales, residuals = quantize(vectors)
    return Segment(ids, numbers, vectors, codes, scales, residuals, lengths, terms, starts, rows[order], counts[order])


def save(segment: Segment, folder: Path, stamp: str) -> None:
    """Puts a segment's arrays into a new folder, whole or not at all. A folder that exists already is left alone."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
    try:
        for field in fields(Segment):
            np.save(scratch / f"{field.name}.npy", getattr(segment, field.name))
        (scratch / "segment.json").write_text(json.dumps(_header(segment, stamp)), "utf-8")
        with contextlib.suppress(OSError):  # another process was faster: its folder holds the same rows
            os.rename(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def load(folder: Path, stamp: str) -> Segment | None:
    """The segment in a folder, memory-mapped; None when it is not whole or was made from other rows."""
    try:
        arrays: dict[str, Any] = {
            field.name: np.load(folder / f"{field.name}.npy", mmap_mode="r", allow_pickle=False)
            for field in fields(Segment)
        }
        segment = Segment(**arrays)
        header = json.loads((folder / "segment.json").read_text("utf-8"))
    except (OSError, ValueError, EOFError):
        return None
    sound = (
        header == _header(segment, stamp)
        and segment.vectors.shape[0] == len(segment.lengths) == len(segment.numbers) == len(segment.ids)
        and len(segment.starts) == len(segment.terms) + 1
        and len(segment.rows) == len(segment.counts) == int(segment.starts[-1])
    )
    return segment if sound else None


def _header(segment: Segment, stamp: str) -> dict[str, object]:
    """What must agree for the files to be used. `stamp` names the database that the rows came from."""
    return {
        "format": _FORMAT,
        "stamp": stamp,
        "rows": len(segment),
        "dim": int(segment.vectors.shape[1]),
        "ids": blake2b(np.ascontiguousarray(segment.ids).tobytes(), digest_size=16).hexdigest(),
    }
