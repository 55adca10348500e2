"""The exact nearest vectors, found in an eighth of the memory traffic.

Comparing a question with all vectors is bound by memory, not by arithmetic. So each vector also stands in 8 bits. Their
products are close to the true cosines, and how close is known for each row: all rows that could be among the best are
then compared in full. The result is that of a full scan, always.
"""

from __future__ import annotations

import numpy as np
import simsimd
from numpy.typing import NDArray

_SLACK = np.float32(1e-5)  # rounding of the float32 arithmetic around the bounds


def quantize(
    vectors: NDArray[np.float32],
) -> tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.float32]]:
    """Codes (n, dim), scales (n,) and residual lengths (n,) of vectors (n, dim)."""
    scales = (np.abs(vectors).max(axis=1) / 127).astype(np.float32)
    scales[scales == 0] = 1
    codes = np.rint(vectors / scales[:, None]).astype(np.int8)
    residuals = np.linalg.norm(vectors - codes * scales[:, None], axis=1).astype(np.float32)
    return codes, scales, residuals


def candidates(
    vector: NDArray[np.float32],
    codes: NDArray[np.int8],
    scales: NDArray[np.float32],
    residuals: NDArray[np.float32],
    limit: int,
    wanted: NDArray[np.bool_],
) -> NDArray[np.intp]:
    """Rows that may be among the `limit` with the highest product with `vector` (dim,): all that are, and few more.

    Only those that are `wanted` (n,) count.

    With v = s * c + r for a row and q = t * d + e for the question, |q.v - s * t * (c.d)| <= |q| |r| + |e| |s * c|, and
    |s * c| <= |v| + |r|, where |v| is 1.
    """
    if np.count_nonzero(wanted) <= limit:
        return np.flatnonzero(wanted)
    (code,), (scale,), (residual,) = quantize(vector[None])
    dots = np.asarray(simsimd.cdist(code[None], codes, "dot", out_dtype="float32")).reshape(-1)  # whole numbers < 2**24
    products = dots * (scales * scale)
    length = np.float32(np.linalg.norm(vector))
    errors = length * residuals + residual * (1 + residuals) + _SLACK
    sure = np.where(wanted, products - errors, -np.inf)
    edge = np.partition(sure, len(sure) - limit)[len(sure) - limit]
    return np.flatnonzero(wanted & (products + errors >= edge))
