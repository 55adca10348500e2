"""The options of `llamabda cost`."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

from llamabda import costs, prices, receipts
from llamabda.costs import Choices, Work


def add(cost: argparse.ArgumentParser) -> None:
    """The defaults are those of the template, and what was measured."""
    choices, work = Choices(), Work()
    cost.add_argument(
        "--prices", action="store_true", help="the table of prices instead: where and when each was found"
    )
    cost.add_argument("--opensearch", choices=costs.OPENSEARCH, default=choices.opensearch, help="(%(default)s)")
    cost.add_argument("--instance", default=choices.instance, help="of a domain (%(default)s)")
    cost.add_argument("--instance-hour", type=_amount(1_000), metavar="USD", help="its price, where the table lacks it")
    cost.add_argument("--instances", type=_count(1, 80), default=choices.instances, help="(%(default)s)")
    cost.add_argument(
        "--storage", type=_count(10, 1_000), default=choices.storage, help="GB an instance, at least (%(default)s)"
    )
    cost.add_argument("--standby", action="store_true", help="of a serverless collection")
    cost.add_argument(
        "--architecture", choices=receipts.ARCHITECTURES, default=choices.architecture, help="(%(default)s)"
    )
    for name, default in (("--ask-memory", choices.ask_memory), ("--ingest-memory", choices.ingest_memory)):
        cost.add_argument(name, type=_count(128, 10_240), default=default, metavar="MB", help="(%(default)s)")
    cost.add_argument("--signing-keys", type=_count(1, 10), default=choices.signing_keys, help="(%(default)s)")
    cost.add_argument("--alarms", type=_count(0, 1_000), default=choices.alarms, help="(%(default)s)")
    cost.add_argument("--dashboards", type=_count(0, 100), default=choices.dashboards, help="(%(default)s)")
    cost.add_argument("--answers", type=_count(0, 10**10), default=work.answers, help="a month (%(default)s)")
    cost.add_argument(
        "--seconds",
        type=_amount(900),
        default=work.seconds,
        help=f"of an answer (%(default)s: measured; {costs.EXTRACT_SECONDS} for extracts)",
    )
    cost.add_argument("--passages", type=_count(1, 50), default=work.passages, help="of a prompt (%(default)s)")
    for name, default in (("passage", work.passage_tokens), ("completion", work.completion_tokens)):
        cost.add_argument(f"--{name}-tokens", type=_count(0, 1_000_000), default=default, help="of one (%(default)s)")
    cost.add_argument("--documents", type=_count(0, 10**10), default=work.documents, help="(%(default)s)")
    cost.add_argument(
        "--gigabytes", type=_amount(1_000_000), default=work.gigabytes, help="of text, together (%(default)s)"
    )
    cost.add_argument(
        "--model", choices=prices.MODELS, default="nova-micro", help="of the knowledge base (%(default)s)"
    )
    cost.add_argument(
        "--store", choices=costs.STORES, default=costs.STORES[0], help="of the knowledge base (%(default)s)"
    )


def _amount(most: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not 0 <= number <= most:
            raise argparse.ArgumentTypeError(f"{text[:100]!r} is not a number from 0 to {most:,}")
        return number

    return parse


def _count(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else low - 1
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"{text[:100]!r} is not a whole number from {low:,} to {high:,}")
        return number

    return parse
