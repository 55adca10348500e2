"""Metrics in the text format that Prometheus reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from llamabda.types import Reply

METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60)

Gauges = Callable[[], Mapping[str, Mapping[str, float]]]


class PrometheusMetrics:
    """The Metrics port. `gauges` is asked at each scrape: metric name, then label value, then the number."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, gauges: Gauges) -> None:
        self._registry = registry = CollectorRegistry()
        registry.register(_Gauges(gauges))
        self._requests = Counter("llamabda_requests", "Requests.", ["route", "method", "status"], registry=registry)
        self._seconds = Histogram(
            "llamabda_request_seconds", "Time to the end of a reply.", ["route"], buckets=SECONDS, registry=registry
        )
        self._stages = Histogram(
            "llamabda_stage_seconds", "Time of a question's stages.", ["stage"], buckets=SECONDS, registry=registry
        )
        self._answers = Counter(
            "llamabda_answers",
            "Questions by what became of them; answered=false are refusals.",
            ["answered", "mode", "finish_reason"],
            registry=registry,
        )
        self._tokens = Counter("llamabda_tokens", "Tokens of the language model.", ["kind"], registry=registry)

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        self._requests.labels(route, method if method in METHODS else "other", str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def stages(self, timings: Mapping[str, float]) -> None:
        for stage, milliseconds in timings.items():
            self._stages.labels(stage).observe(milliseconds / 1000)

    def answer(self, reply: Reply) -> None:
        self._answers.labels(str(reply.answered).lower(), reply.mode, reply.finish_reason).inc()
        self._tokens.labels("prompt").inc(reply.usage.prompt_tokens)
        self._tokens.labels("cached").inc(reply.usage.cached_tokens)
        self._tokens.labels("completion").inc(reply.usage.completion_tokens)

    def text(self) -> bytes:
        """All of it, as it is scraped."""
        return generate_latest(self._registry)


class _Gauges(Collector):
    def __init__(self, gauges: Gauges) -> None:
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        for name, values in self._gauges().items():
            family = GaugeMetricFamily(f"llamabda_{name}", name.replace("_", " ").capitalize() + ".", labels=["state"])
            for label, value in values.items():
                family.add_metric([label], value)
            yield family
