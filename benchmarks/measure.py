"""What a benchmark finds: samples per contender, taken in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

OURS = "llamabda"


class Unavailable(Exception):
    """A contender cannot take part here; the message says why and what would help."""


@dataclass(frozen=True, slots=True)
class Samples:
    """One contender's results, one per round, all in the unit of their row."""

    name: str
    values: tuple[float, ...]  # empty: this contender could not take part

    @property
    def median(self) -> float | None:
        return statistics.median(self.values) if self.values else None


@dataclass(frozen=True, slots=True)
class Row:
    """One measured thing. `ours` and `rivals` did the same work in the same run."""

    part: str
    what: str
    unit: str
    ours: Samples
    rivals: tuple[Samples, ...] = ()
    higher_is_better: bool = False
    aim: str = ""  # what the project wants to reach, in words
    note: str = ""

    def times_better(self, rival: Samples) -> float | None:
        """How many times better ours is than a rival, by medians; below 1 is worse. None when one has no result."""
        mine, theirs = self.ours.median, rival.median
        if not mine or not theirs:  # a median of 0 has no ratio either
            return None
        return mine / theirs if self.higher_is_better else theirs / mine


@dataclass(frozen=True, slots=True)
class Section:
    """A ready-made Markdown block of one part, for tables that are not contender beside contender."""

    part: str
    markdown: str


def in_turns(contenders: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, tuple[float, ...]]:
    """Runs every contender once per round, so that what else the machine does meets all of them alike.

    Every other round goes backwards: none always follows the same other.
    """
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name in sorted(contenders, key=list(contenders).index, reverse=bool(number % 2)):
            found[name].append(contenders[name]())
    return {name: tuple(values) for name, values in found.items()}


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
