"""When a model repeats itself."""

from __future__ import annotations

from collections.abc import Sequence

# A loop is a block of this many tokens that comes twice in a row: long enough that "10 10" and "very, very" are none,
# short enough that a sentence is caught at its first repetition.
LOOP_TOKENS = range(8, 65)


def is_loop(tokens: Sequence[int]) -> bool:
    """Whether greedy decoding has begun to say the same over and over: it would never leave that."""
    for length in LOOP_TOKENS:
        if 2 * length > len(tokens):
            return False
        if tokens[-length:] == tokens[-2 * length : -length]:
            return True
    return False
