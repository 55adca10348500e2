"""Counts nothing."""

from __future__ import annotations

from collections.abc import Mapping

from llamabda.types import Reply


class NoMetrics:
    """The Metrics port where nobody reads them."""

    def request(self, route: str, method: str, status: int, seconds: float) -> None: ...

    def stages(self, timings: Mapping[str, float]) -> None: ...

    def answer(self, reply: Reply) -> None: ...
