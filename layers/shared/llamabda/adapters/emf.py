"""Metrics as lines of CloudWatch's embedded metric format: what Lambda prints, CloudWatch counts.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping

from llamabda.types import Reply

NAMESPACE = "Llamabda"
DIMENSION = "Function"  # the only one: each further value of a dimension is a further metric, with a price of its own

# In the order in which they are printed. Stages' times, route and status are printed beside them as plain fields, which
# queries over the log find and nobody pays for by the metric.
UNITS = {
    "Requests": "Count",
    "ClientErrors": "Count",
    "ServerErrors": "Count",
    "Latency": "Milliseconds",
    "Answers": "Count",
    "Refusals": "Count",
    "GeneratedAnswers": "Count",
    "DeadlineReplies": "Count",
    "PromptTokens": "Count",
    "CachedTokens": "Count",
    "CompletionTokens": "Count",
}


class EmfMetrics:
    """The Metrics port: one line for each request, once it has ended.

    What is told of an answer is kept until then. An instance of a function has one request at a time; where there are
    more, each number is counted once all the same. Nothing of who asked, or what, is printed: routes are templates.
    """

    def __init__(
        self,
        function: str,
        *,
        write: Callable[[str], object] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`write` takes a line without its end; by default it goes to stdout, whichever that is then."""
        self._function = function
        self._write = _print if write is None else write
        self._now = now
        self._lock = threading.Lock()
        self._answers: Counter[str] = Counter()
        self._stages: dict[str, float] = {}

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        with self._lock:
            answers, self._answers = self._answers, Counter()
            stages, self._stages = self._stages, {}
        metrics: dict[str, float] = {
            "Requests": 1,
            "ClientErrors": int(400 <= status < 500),
            "ServerErrors": int(status >= 500 or status == 0),
            "Latency": round(1000 * seconds, 1),
            **answers,
        }
        fields = {"Route": route, "Method": method if method.isalpha() and len(method) <= 10 else "other"}
        times = {f"Stage{name.capitalize()}": round(spent, 1) for name, spent in stages.items()}
        self._write(_line(self._function, metrics, {**fields, "Status": status, **times}, self._now()))

    def stages(self, timings: Mapping[str, float]) -> None:
        with self._lock:
            self._stages.update(timings)

    def answer(self, reply: Reply) -> None:
        # a metric that was never printed has no data, and an alarm on it nothing to look at: so zeros are printed, too
        counted = {
            "Answers": int(reply.answered),
            "Refusals": int(not reply.answered),
            "GeneratedAnswers": int(reply.mode == "generated"),
            "DeadlineReplies": int(reply.finish_reason == "deadline"),
            "PromptTokens": reply.usage.prompt_tokens,
            "CachedTokens": reply.usage.cached_tokens,
            "CompletionTokens": reply.usage.completion_tokens,
        }
        with self._lock:
            for name, count in counted.items():
                self._answers[name] += count


def _line(function: str, metrics: Mapping[str, float], fields: Mapping[str, object], now: float) -> str:
    directive = {
        "Namespace": NAMESPACE,
        "Dimensions": [[DIMENSION]],
        "Metrics": [{"Name": name, "Unit": unit} for name, unit in UNITS.items() if name in metrics],
    }
    document = {"_aws": {"Timestamp": int(now * 1000), "CloudWatchMetrics": [directive]}, DIMENSION: function}
    return json.dumps({**document, **metrics, **fields}, separators=(",", ":"))


def _print(line: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # nobody reads it, or it is closed: counting must not end a request
        sys.stdout.write(line + "\n")  # at once: what comes from another thread must not come in between
        sys.stdout.flush()
