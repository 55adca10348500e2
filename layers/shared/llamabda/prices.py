"""What AWS charges, in one dated table: US dollars, region us-east-1, on demand, without free tiers or discounts.

AWS publishes its prices on pages that change without notice. `source` names the page that holds a price, `found` where
it was read, and of when that text is. Few were read on AWS's own pages: look there before you rely on a figure.
"""

from __future__ import annotations

from dataclasses import dataclass

AS_OF = "2026-11-23"  # when the table was put together
REGION = "us-east-1"
HOURS_PER_MONTH = 730  # as AWS's own calculator counts
MEMORY = "not looked up: remembered"  # what `found` says of a price that no text was found for

_LAMBDA = "aws.amazon.com/lambda/pricing"
_OPENSEARCH = "aws.amazon.com/opensearch-service/pricing"
_DYNAMODB = "aws.amazon.com/dynamodb/pricing/on-demand"
_S3 = "aws.amazon.com/s3/pricing"
_CLOUDWATCH = "aws.amazon.com/cloudwatch/pricing"
_BEDROCK = "aws.amazon.com/bedrock/pricing"
_INSTANCES = "several public tools' tables of us-east-1, which agree; one says 2025"


@dataclass(frozen=True, slots=True)
class Price:
    usd: float
    unit: str  # for what one pays it
    source: str
    found: str


PRICES = {
    "lambda x86_64": Price(
        0.0000166667,
        "GB-second",
        _LAMBDA,
        "cloudchipr.com, AWS Lambda pricing breakdown (2024); a course's notes (2026-05)",
    ),
    "lambda arm64": Price(
        0.0000133334,
        "GB-second",
        _LAMBDA,
        "cloudchipr.com, AWS Lambda pricing breakdown (2024); a course's notes (2026-05)",
    ),
    "lambda request": Price(0.20 / 1e6, "request", _LAMBDA, "a course's notes (2026-05); unchanged for years"),
    "http api request": Price(
        1.00 / 1e6,
        "request of up to 512 KB",
        "aws.amazon.com/api-gateway/pricing",
        "amnic.com and awsforengineers.com (2025-05)",
    ),
    "data out": Price(
        0.09, "GB to the internet", "aws.amazon.com/ec2/pricing/on-demand", "amnic.com, API Gateway pricing"
    ),
    "dynamodb read": Price(
        0.125 / 1e6, "read of up to 4 KB, consistent", _DYNAMODB, "airbyte.com (2025-07), after the cut of 2024-11"
    ),
    "dynamodb write": Price(
        0.625 / 1e6, "write of up to 1 KB", _DYNAMODB, "airbyte.com (2025-07), after the cut of 2024-11"
    ),
    "dynamodb storage": Price(
        0.25, "GB-month", _DYNAMODB, "aws.amazon.com/dynamodb/pricing, a stored copy without date"
    ),
    "dynamodb recovery": Price(
        0.20, "GB-month of point-in-time recovery", _DYNAMODB, "finops.com.py, DynamoDB backups"
    ),
    "s3 storage": Price(0.023, "GB-month", _S3, "a public repository's table of simple prices, without date"),
    "s3 put": Price(0.005 / 1e3, "PUT or LIST request", _S3, "the same table"),
    "s3 get": Price(0.0004 / 1e3, "GET request", _S3, "the same table"),
    "sqs request": Price(0.40 / 1e6, "request of up to 64 KB", "aws.amazon.com/sqs/pricing", "the same table"),
    "eventbridge event": Price(
        1.00 / 1e6,
        "event of S3",
        "aws.amazon.com/eventbridge/pricing",
        f"{MEMORY}; two guides of 2026 call these events free",
    ),
    "kms key": Price(1.00, "key and month", "aws.amazon.com/kms/pricing", "that page, a stored copy without date"),
    "kms signature": Price(
        0.03 / 1e4, "signature with RSA_2048", "aws.amazon.com/kms/pricing", "wring.co, KMS pricing guide (2026)"
    ),
    "cloudfront request": Price(
        0.0100 / 1e4,
        "HTTPS request",
        "aws.amazon.com/cloudfront/pricing",
        "wring.co, CloudFront pricing guide (2026-03)",
    ),
    "logs": Price(0.50, "GB taken in", _CLOUDWATCH, "factualminds.com, CloudWatch pricing (2026-06)"),
    "logs storage": Price(0.03, "GB-month, compressed", _CLOUDWATCH, MEMORY),
    "metric": Price(0.30, "metric and month, by the hour in which it is sent", _CLOUDWATCH, "signoz.io (2026-02)"),
    "alarm": Price(0.10, "alarm and month", _CLOUDWATCH, "c3x.dev, CloudWatch alarms"),
    "dashboard": Price(3.00, "dashboard and month", _CLOUDWATCH, "factualminds.com, CloudWatch pricing (2026-06)"),
    "ecr storage": Price(
        0.10, "GB-month, compressed", "aws.amazon.com/ecr/pricing", "cloudburn.io, ECR pricing (2026-03)"
    ),
    "t3.small.search": Price(0.036, "hour", _OPENSEARCH, _INSTANCES),
    "t3.medium.search": Price(0.073, "hour", _OPENSEARCH, _INSTANCES),
    "m6g.large.search": Price(0.128, "hour", _OPENSEARCH, _INSTANCES),
    "r6g.large.search": Price(0.167, "hour", _OPENSEARCH, _INSTANCES),
    "opensearch volume": Price(0.122, "GB-month of gp3", _OPENSEARCH, "two public repositories, without date"),
    "ocu": Price(0.24, "OCU and hour", _OPENSEARCH, "awsnegotiations.com (2026-02); dropinfinops.com"),
    "ocu storage": Price(0.024, "GB-month", _OPENSEARCH, "two public repositories, without date"),
    "s3 vectors storage": Price(0.06, "GB-month", _S3, "exploreagentic.ai (after 2025-12)"),
    "s3 vectors write": Price(0.20, "GB", _S3, "exploreagentic.ai (after 2025-12); caylent.com"),
    "s3 vectors query": Price(2.50 / 1e6, "query, before what it reads", _S3, "oflight.co.jp (2026-04)"),
    "titan-embed-text-v2 input": Price(0.02 / 1e6, "token", _BEDROCK, MEMORY),
    "nova-micro input": Price(0.035 / 1e6, "token", _BEDROCK, "pristren.com, Nova Micro"),
    "nova-micro output": Price(0.14 / 1e6, "token", _BEDROCK, "pristren.com, Nova Micro"),
    "nova-lite input": Price(0.06 / 1e6, "token", _BEDROCK, "pristren.com, Nova Micro"),
    "nova-lite output": Price(0.24 / 1e6, "token", _BEDROCK, "pristren.com, Nova Micro"),
    "claude-3-haiku input": Price(0.25 / 1e6, "token", _BEDROCK, "pristren.com, Nova Micro"),
    "claude-3-haiku output": Price(1.25 / 1e6, "token", _BEDROCK, "pristren.com, Nova Micro"),
}

INSTANCES = tuple(name for name in PRICES if name.endswith(".search"))
MODELS = tuple(name.removesuffix(" output") for name in PRICES if name.endswith(" output"))


def usd(name: str) -> float:
    """KeyError for what the table does not have."""
    return PRICES[name].usd
