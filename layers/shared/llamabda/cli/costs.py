"""`llamabda cost`: what the bundle costs on AWS, and the same work beside it."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from llamabda import costs, prices
from llamabda.costs import Choices, Line, Rival, Work
from llamabda.errors import InvalidInput
from llamabda.receipts import gb_seconds

if TYPE_CHECKING:
    from llamabda.cli.console import Console

PER = 1_000  # answers


def cost(arguments: Namespace, console: Console) -> int:
    if arguments.prices:
        return _prices(console)
    choices = _choices(arguments)
    work = Work(
        answers=arguments.answers,
        seconds=arguments.seconds,
        passages=arguments.passages,
        passage_tokens=arguments.passage_tokens,
        completion_tokens=arguments.completion_tokens,
        documents=arguments.documents,
        gigabytes=arguments.gigabytes,
    )
    rival = Rival(arguments.model, arguments.store)
    if console.json:
        console.data(_data(choices, work, rival))
    else:
        _tell(choices, work, rival, console)
    return 0


def _choices(arguments: Namespace) -> Choices:
    """InvalidInput for an instance whose price nobody knows."""
    if arguments.instance not in prices.PRICES and arguments.instance_hour is None:
        raise InvalidInput(
            f"the price of {arguments.instance[:100]!r} is not in the table, which has {', '.join(prices.INSTANCES)}: "
            "give it with --instance-hour",
            loc=("instance",),
        )
    return Choices(
        opensearch=arguments.opensearch,
        instance=arguments.instance,
        instances=arguments.instances,
        storage=arguments.storage,
        standby=arguments.standby,
        instance_hour=arguments.instance_hour,
        architecture=arguments.architecture,
        ask_memory=arguments.ask_memory,
        ingest_memory=arguments.ingest_memory,
        signing_keys=arguments.signing_keys,
        alarms=arguments.alarms,
        dashboards=arguments.dashboards,
    )


def alternatives(choices: Choices) -> list[tuple[str, Choices]]:
    """The same deployment over every OpenSearch that the table knows."""
    domains = [
        (f"domain, 1 x {name}", replace(choices, opensearch="domain", instance=name, instances=1, instance_hour=None))
        for name in prices.INSTANCES
    ]
    return [
        *domains,
        ("serverless", replace(choices, opensearch="serverless", standby=False)),
        ("serverless, with standby", replace(choices, opensearch="serverless", standby=True)),
        ("existing", replace(choices, opensearch="existing")),
    ]


def _data(choices: Choices, work: Work, rival: Rival) -> dict[str, object]:
    return {
        "prices": {"region": prices.REGION, "as_of": prices.AS_OF},
        "choices": asdict(choices),
        "work": {**asdict(work), "prompt_tokens": work.prompt_tokens},
        "idle_month": _group(costs.idle(choices, work)),
        "answers": {"count": PER, **_group(costs.answers(choices, work, PER))},
        "metrics_month": _group(costs.metrics(work)),
        "month_usd": costs.month(choices, work),
        "taking_in": _group(costs.taking_in(choices, work)),
        "idle_month_by_opensearch": {
            name: costs.total(costs.idle(other, work)) for name, other in alternatives(choices)
        },
        "knowledge_base": {
            **asdict(rival),
            "idle_month": _group(costs.rival_idle(rival, work)),
            "answers": {"count": PER, **_group(costs.rival_answers(rival, work, PER))},
            "month_usd": costs.rival_month(rival, work),
            "taking_in": _group(costs.rival_taking_in(rival, work)),
            "cheaper_from_answers_a_month": costs.break_even(choices, rival, work),
        },
    }


def _group(lines: Sequence[Line]) -> dict[str, object]:
    return {"usd": costs.total(lines), "lines": [asdict(line) for line in lines]}


def _tell(choices: Choices, work: Work, rival: Rival, console: Console) -> None:
    spent = gb_seconds(work.seconds, choices.ask_memory)
    _table(console, "A month in which nobody asks", costs.idle(choices, work))
    _table(
        console,
        f"{PER:,} answers, each {work.seconds:g} s of {choices.ask_memory} MB: {spent:.2f} GB-seconds",
        costs.answers(choices, work, PER),
    )
    _table(console, f"Metrics of a month with {work.answers:,} answers", costs.metrics(work))
    _table(
        console, f"Taking in {work.documents:,} documents, {work.gigabytes:g} GB, once", costs.taking_in(choices, work)
    )
    console.result("The idle month by OpenSearch")
    for name, other in alternatives(choices):
        _row(console, name, "", costs.total(costs.idle(other, work)))
    console.result()
    console.result(f"Beside it: a Bedrock knowledge base, {rival.model}, {rival.store}, the same passages and tokens")
    console.result()
    _table(console, "Its month in which nobody asks", costs.rival_idle(rival, work))
    _table(console, f"Its {PER:,} answers", costs.rival_answers(rival, work, PER))
    _table(console, "Its taking in", costs.rival_taking_in(rival, work))
    console.result(f"A month with {work.answers:,} answers")
    _row(console, "Llamabda", "", costs.month(choices, work))
    _row(console, "the knowledge base", "", costs.rival_month(rival, work))
    even = costs.break_even(choices, rival, work)
    if even is not None:
        console.result(f"  the knowledge base is the cheaper one from {even:,} answers a month on")
    console.note(f"Prices of {prices.REGION}, {prices.AS_OF}, without free tiers; where from: llamabda cost --prices")


def _table(console: Console, title: str, lines: Sequence[Line]) -> None:
    console.result(f"{title}")
    for line in lines:
        _row(console, line.what, f"{_amount(line.amount)} {line.unit}", line.usd)
    if len(lines) > 1:
        _row(console, "together", "", costs.total(lines))
    console.result()


def _row(console: Console, what: str, amount: str, usd: float) -> None:
    console.result(f"  {what:<36}{amount:>26}{usd:>12,.4f} USD")


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 1_000 or value == int(value) else f"{value:.3g}"


def _prices(console: Console) -> int:
    if console.json:
        table = {name: asdict(price) for name, price in prices.PRICES.items()}
        console.data({"region": prices.REGION, "as_of": prices.AS_OF, "currency": "USD", "prices": table})
        return 0
    for name, price in prices.PRICES.items():
        console.result(f"{name:<26}{price.usd:>16.10f}  for each {price.unit}")
        console.result(f"{'':<26}{'':>16}  {price.source}; found: {price.found}")
    console.note(f"{prices.REGION}, {prices.AS_OF}, USD, on demand, without free tiers")
    return 0
