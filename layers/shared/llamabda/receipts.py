"""What one invocation of a function has cost so far."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from llamabda.prices import usd
from llamabda.types import Reply

Architecture = Literal["x86_64", "arm64"]
ARCHITECTURES: tuple[Architecture, ...] = ("x86_64", "arm64")
MB_PER_GB = 1024  # as Lambda counts memory
_DIGITS = 9  # of a dollar: a millisecond of the smallest function is 2e-9 of it


def gb_seconds(seconds: float, memory: int) -> float:
    """What Lambda bills for a run: whole milliseconds, rounded up, times the memory (MB) of the function."""
    # a millisecond that exists only because 3 is stored as 3.0000000000000004 is none
    milliseconds = math.ceil(round(1000 * max(0.0, seconds), 6))
    return milliseconds / 1000 * memory / MB_PER_GB


@dataclass(frozen=True, slots=True)
class Receipts:
    """For a function of so much memory (MB)."""

    memory: int
    architecture: Architecture

    def on(self, reply: Reply, seconds: float) -> Reply:
        """The reply with what the invocation has cost after so many seconds: running and the request itself.

        Neither what it asked other services for, nor its start, nor what is free in a month.
        """
        spent = gb_seconds(seconds, self.memory)
        cost = spent * usd(f"lambda {self.architecture}") + usd("lambda request")
        usage = replace(reply.usage, gb_seconds=round(spent, 6), estimated_cost_usd=round(cost, _DIGITS))
        return replace(reply, usage=usage)
