"""What the template describes, made in an account that is played on this machine."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config

from llamabda import issuer, publication
from llamabda.adapters.kms import KmsSigner
from llamabda.adapters.s3 import S3Documents
from scripts.local import template

REGION = "eu-west-1"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local", "AWS_DEFAULT_REGION": REGION}
INSIDE = {"aws": "http://aws:5000", "opensearch": "http://opensearch:9200"}  # as containers of the network reach them
LONGEST_SECONDS = 930  # Lambda ends a function after 900
_PREFIX = "llamabda-local"
_TABLES = {"UsersTable": "users", "CatalogTable": "catalog"}
_BUCKETS = {"DocumentBucket": "documents", "TextBucket": "texts", "IssuerBucket": "issuer"}
_QUEUES = {"WorkQueue": "work", "DeadLetterQueue": "failed"}


@dataclass(frozen=True, slots=True)
class Account:
    """`endpoint`: as this machine reaches it. `key`: of KMS."""

    endpoint: str
    key: str
    issuer: str

    def client(self, service: str) -> Any:
        return client(service, self.endpoint)

    @property
    def bucket(self) -> str:
        return name("DocumentBucket")

    def queue(self, logical: str) -> str:
        """The address of a queue, as this machine reaches it."""
        return str(self.client("sqs").get_queue_url(QueueName=name(logical))["QueueUrl"])

    def environment(self) -> dict[str, str]:
        """Of the functions: what the template leaves to the cloud."""
        queues = {logical: f"{INSIDE['aws']}/123456789012/{name(logical)}" for logical in _QUEUES}
        return {
            "USERS_TABLE": name("UsersTable"),
            "CATALOG_TABLE": name("CatalogTable"),
            "TEXT_BUCKET": name("TextBucket"),
            "BUCKET": name("DocumentBucket"),
            "QUEUE_URL": queues["WorkQueue"],
            "DEAD_LETTER_URL": queues["DeadLetterQueue"],
            "JWKS_URL": f"s3://{name('IssuerBucket')}/.well-known/jwks.json",
            "KMS_KEY_ID": self.key,
            "OPENSEARCH_HOST": INSIDE["opensearch"],
            "AWS_ENDPOINT_URL": INSIDE["aws"],
        }


def name(logical: str) -> str:
    """Of the resource that the template knows by that name."""
    return f"{_PREFIX}-{(_TABLES | _BUCKETS | _QUEUES)[logical]}"


def client(service: str, endpoint: str) -> Any:
    """Waits for a function as long as it may run, and calls it once: whether it goes again is the caller's to say."""
    seconds, attempts = (LONGEST_SECONDS, 1) if service == "lambda" else (60, 3)
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id="local",
        aws_secret_access_key="local",  # noqa: S106  (moto asks for one and looks at none)
        config=Config(
            connect_timeout=5,
            read_timeout=seconds,
            retries={"total_max_attempts": attempts, "mode": "standard"},
            proxies={},  # it is on this machine, whatever the environment says
        ),
    )


def make(endpoint: str) -> Account:
    """Tables, buckets, queues, the rule between them, and the key with its published half."""
    described = template.read()
    resources = described["Resources"]
    tables = client("dynamodb", endpoint)
    for logical in _TABLES:
        tables.create_table(TableName=name(logical), **template.table(described, logical))
    buckets = client("s3", endpoint)
    for logical in _BUCKETS:
        buckets.create_bucket(Bucket=name(logical), CreateBucketConfiguration={"LocationConstraint": REGION})
    buckets.put_bucket_notification_configuration(
        Bucket=name("DocumentBucket"), NotificationConfiguration={"EventBridgeConfiguration": {}}
    )
    _make_queues(resources, endpoint)
    key = client("kms", endpoint)
    made = key.create_key(
        KeySpec=resources["BlueKey"]["Properties"]["KeySpec"],
        KeyUsage=resources["BlueKey"]["Properties"]["KeyUsage"],
    )["KeyMetadata"]["KeyId"]
    address = template.local_parameters()["TokenIssuer"]
    published = issuer.documents(address, KmsSigner(key, (made,)).public_jwks())
    publication.write(S3Documents(buckets, name("IssuerBucket")), published)
    return Account(endpoint, made, address)


def _make_queues(resources: dict[str, Any], endpoint: str) -> None:
    queues, rules = client("sqs", endpoint), client("events", endpoint)
    arns = {}
    for logical in ("DeadLetterQueue", "WorkQueue"):  # the first is named by the second
        properties = resources[logical]["Properties"]
        attributes = {
            key: str(value)
            for key, value in properties.items()
            if isinstance(value, int) and not isinstance(value, bool)
        }
        if redrive := properties.get("RedrivePolicy"):
            target = arns["DeadLetterQueue"]
            attributes["RedrivePolicy"] = json.dumps(
                {"deadLetterTargetArn": target, "maxReceiveCount": redrive["maxReceiveCount"]}
            )
        url = queues.create_queue(QueueName=name(logical), Attributes=attributes)["QueueUrl"]
        reply = queues.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        arns[logical] = reply["Attributes"]["QueueArn"]
    pattern = template.resolved(resources["ObjectEvents"]["Properties"]["EventPattern"], name)
    rules.put_rule(Name=f"{_PREFIX}-objects", EventPattern=json.dumps(pattern))
    rules.put_targets(Rule=f"{_PREFIX}-objects", Targets=[{"Id": "work", "Arn": arns["WorkQueue"]}])
