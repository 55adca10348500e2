"""What a deployment costs by the table of prices: while nobody asks, for each answer, and for taking documents in.

Beside it what Amazon Bedrock's Knowledge Bases take for the same work: as many tokens of prompt and answer, the same
documents. Prices alone are compared, not answers. Nothing is said of a front door for them (an API, tokens, limits),
which they have none of.

All in US dollars, without what AWS gives away each month. Figures that were not measured are estimates, and say so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from llamabda.prices import HOURS_PER_MONTH, usd
from llamabda.receipts import Architecture, gb_seconds

OpenSearch = Literal["domain", "serverless", "existing"]
OPENSEARCH: tuple[OpenSearch, ...] = ("domain", "serverless", "existing")
Store = Literal["opensearch-serverless", "s3-vectors"]
DOMAIN_ALARMS = 3  # of the template, for a domain of its own
STORES: tuple[Store, ...] = ("opensearch-serverless", "s3-vectors")

# benchmarks/results, 2026-11-22: medians on two processors of an Intel Xeon, the index embedded; not on Lambda
ANSWER_SECONDS = 3.182  # POST /ask/question, auto, 10k chunks: 20 questions
EXTRACT_SECONDS = 0.104  # the same, extractive
CHUNKS_PER_SECOND = 68.1  # texts of 20-160 words embedded
PROMPT_TOKENS = 625  # generation: prompts of 557-693 tokens, three passages in each
COMPLETION_TOKENS = 75  # 1,418 tokens in 19 answers
PASSAGE_TOKENS = 190  # a chunk of at most 800 characters
QUESTION_TOKENS = PROMPT_TOKENS - 3 * PASSAGE_TOKENS  # and instructions

# estimates
DOCUMENT_READS = 100  # an answer asks which version is live of every document that was found: up to 600
OTHER_READS = 3  # the account, the key set, which vectors are searched
LOG_BYTES = 2_500  # an answer: the runtime's lines, ours, the metrics', the gateway's
REPLY_BYTES = 6_000
ANSWERS_PER_LOGIN = 20
CHARACTERS_PER_CHUNK = 700  # 800, of which neighbours share 100
CHARACTERS_PER_TOKEN = 4
INDEX_RATIO = 6  # bytes of OpenSearch's index for a byte of text
VOLUME_ROOM = 1.45  # bytes of volume for a byte of index, as OpenSearch Service's guide has it
RECORD_BYTES = 2_000  # a document's items in the catalog
RECORD_WRITES = 12  # until a document is live, with its indexes
IMAGES_GB = 0.7  # the three, compressed
TITAN_DIMENSIONS = 1024

OCUS = {True: 2.0, False: 1.0}  # with and without standby, at least: half of them for indexing
METRICS = {"ask": 11, "ingest": 4, "auth": 4}  # that a function prints


@dataclass(frozen=True, slots=True)
class Choices:
    """The parameters of a deployment that cost something. Memory in MB."""

    opensearch: OpenSearch = "domain"
    instance: str = "t3.small.search"
    instances: int = 1
    storage: int = 10  # GB an instance, at least
    standby: bool = False  # of a serverless collection
    instance_hour: float | None = None  # USD, where the table does not have the instance, or another price
    architecture: Architecture = "x86_64"
    ask_memory: int = 5_120
    ingest_memory: int = 3_008
    signing_keys: int = 1
    alarms: int = 11  # a new domain has DOMAIN_ALARMS more
    dashboards: int = 1


@dataclass(frozen=True, slots=True)
class Work:
    """What it is used for."""

    answers: int = 1_000  # a month
    seconds: float = ANSWER_SECONDS  # of one
    passages: int = 3
    passage_tokens: int = PASSAGE_TOKENS
    completion_tokens: int = COMPLETION_TOKENS
    documents: int = 1_000
    gigabytes: float = 0.1  # of text, all documents together

    @property
    def prompt_tokens(self) -> int:
        return QUESTION_TOKENS + self.passages * self.passage_tokens

    @property
    def chunks(self) -> float:
        return self.gigabytes * 1e9 / CHARACTERS_PER_CHUNK

    @property
    def index_gigabytes(self) -> float:
        return self.gigabytes * INDEX_RATIO


@dataclass(frozen=True, slots=True)
class Rival:
    """A knowledge base: its model, as the table of prices names it, and where its vectors are."""

    model: str = "nova-micro"
    store: Store = "opensearch-serverless"


@dataclass(frozen=True, slots=True)
class Line:
    """So many of something, each at a price."""

    what: str
    amount: float
    unit: str
    usd: float


def total(lines: Iterable[Line]) -> float:
    return math.fsum(line.usd for line in lines)


def _line(what: str, amount: float, unit: str, price: str | float) -> Line:
    return Line(what, amount, unit, amount * (usd(price) if isinstance(price, str) else price))


def idle(choices: Choices, work: Work) -> list[Line]:
    """A month in which nobody asks, with the documents that are there."""
    records = work.documents * RECORD_BYTES / 1e9
    return [
        *_search(choices, work),
        _line("signing keys", choices.signing_keys, "keys", "kms key"),
        _line("documents and texts in S3", 2 * work.gigabytes, "GB", "s3 storage"),
        _line("catalog in DynamoDB, recoverable", records, "GB", usd("dynamodb storage") + usd("dynamodb recovery")),
        _line("images in ECR", IMAGES_GB, "GB", "ecr storage"),
        _line("alarms", choices.alarms + DOMAIN_ALARMS * (choices.opensearch == "domain"), "alarms", "alarm"),
        _line("dashboard", choices.dashboards, "dashboards", "dashboard"),
    ]


def _search(choices: Choices, work: Work) -> list[Line]:
    if choices.opensearch == "existing":
        return []
    if choices.opensearch == "serverless":
        hours = OCUS[choices.standby] * HOURS_PER_MONTH
        return [
            _line("OpenSearch Serverless, at least", hours, "OCU-hours", "ocu"),
            _line("its storage", work.index_gigabytes, "GB", "ocu storage"),
        ]
    hour = usd(choices.instance) if choices.instance_hour is None else choices.instance_hour
    volume = max(choices.storage, math.ceil(round(work.index_gigabytes * VOLUME_ROOM / choices.instances, 6)))
    return [
        _line(
            f"OpenSearch, {choices.instances} x {choices.instance}", choices.instances * HOURS_PER_MONTH, "hours", hour
        ),
        _line("its volumes", choices.instances * volume, "GB", "opensearch volume"),
    ]


def answers(choices: Choices, work: Work, count: int) -> list[Line]:
    """What so many answers add."""
    running = count * gb_seconds(work.seconds, choices.ask_memory)
    return [
        _line("running", running, "GB-seconds", f"lambda {choices.architecture}"),
        _line("function calls", count, "requests", "lambda request"),
        _line("HTTP API", count, "requests", "http api request"),
        _line("reads of DynamoDB", count * (DOCUMENT_READS + OTHER_READS), "reads", "dynamodb read"),
        _line("logs", count * LOG_BYTES / 1e9, "GB", "logs"),
        _line("replies", count * REPLY_BYTES / 1e9, "GB", "data out"),
        _line("signatures of logins", count / ANSWERS_PER_LOGIN, "signatures", "kms signature"),
    ]


def metrics(work: Work) -> list[Line]:
    """What the metrics add in a month. They are paid by the hour in which they are sent: at most an hour an answer, and
    no more hours than a month has."""
    share = min(1.0, work.answers / HOURS_PER_MONTH)
    return [_line("metrics", share * sum(METRICS.values()), "metrics", "metric")]


def month(choices: Choices, work: Work) -> float:
    """A month with that many answers."""
    return total([*idle(choices, work), *answers(choices, work, work.answers), *metrics(work)])


def taking_in(choices: Choices, work: Work) -> list[Line]:
    """All documents, once, through the bucket."""
    running = gb_seconds(work.chunks / CHUNKS_PER_SECOND, choices.ingest_memory)
    return [
        _line("running", running, "GB-seconds", f"lambda {choices.architecture}"),
        _line("writes of DynamoDB", work.documents * RECORD_WRITES, "writes", "dynamodb write"),
        _line("objects written to S3", 2 * work.documents, "requests", "s3 put"),
        _line("objects read", work.documents, "requests", "s3 get"),
        _line("events", work.documents, "events", "eventbridge event"),
        _line("messages", 3 * work.documents, "requests", "sqs request"),
    ]


def rival_idle(rival: Rival, work: Work) -> list[Line]:
    """The same month of a knowledge base."""
    documents = _line("documents in S3", work.gigabytes, "GB", "s3 storage")
    if rival.store == "s3-vectors":
        return [_line("vectors in S3 Vectors", _vectors(work), "GB", "s3 vectors storage"), documents]
    return [
        _line("OpenSearch Serverless, at least", OCUS[True] * HOURS_PER_MONTH, "OCU-hours", "ocu"),
        _line("its storage", work.index_gigabytes, "GB", "ocu storage"),
        documents,
    ]


def rival_answers(rival: Rival, work: Work, count: int) -> list[Line]:
    queries = [_line("queries of S3 Vectors", count, "queries", "s3 vectors query")]
    return [
        _line(f"prompts to {rival.model}", count * work.prompt_tokens, "tokens", f"{rival.model} input"),
        _line(f"answers of {rival.model}", count * work.completion_tokens, "tokens", f"{rival.model} output"),
        _line("questions embedded", count * QUESTION_TOKENS, "tokens", "titan-embed-text-v2 input"),
        *(queries if rival.store == "s3-vectors" else []),
    ]


def rival_month(rival: Rival, work: Work) -> float:
    return total([*rival_idle(rival, work), *rival_answers(rival, work, work.answers)])


def rival_taking_in(rival: Rival, work: Work) -> list[Line]:
    written = [_line("vectors written", _vectors(work), "GB", "s3 vectors write")]
    return [
        _line("texts embedded", work.gigabytes * 1e9 / CHARACTERS_PER_TOKEN, "tokens", "titan-embed-text-v2 input"),
        _line("objects written to S3", work.documents, "requests", "s3 put"),
        *(written if rival.store == "s3-vectors" else []),
    ]


def _vectors(work: Work) -> float:
    """GB: float32, and the text of each chunk beside it."""
    return work.chunks * (4 * TITAN_DIMENSIONS + CHARACTERS_PER_CHUNK) / 1e9


def break_even(choices: Choices, rival: Rival, work: Work) -> int | None:
    """From how many answers a month on the knowledge base is the cheaper one; None: never, or always."""
    count = 1_000_000
    ours, theirs = total(idle(choices, work)), total(rival_idle(rival, work))
    ours += usd("metric") * sum(METRICS.values())
    gain = (total(answers(choices, work, count)) - total(rival_answers(rival, work, count))) / count
    if theirs <= ours or gain <= 0:
        return None
    return math.ceil((theirs - ours) / gain)
