"""What functions ask of AWS, recorded at their clients, as rights of IAM."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from llamabda import wiring, wiring_aws
from llamabda.background import Background, Once
from llamabda.settings import settings
from scripts.template.roles import Right

_TRANSACTED = {
    "Put": "dynamodb:PutItem",
    "Update": "dynamodb:UpdateItem",
    "Delete": "dynamodb:DeleteItem",
    "ConditionCheck": "dynamodb:ConditionCheckItem",
}
_DYNAMODB = ("DeleteItem", "GetItem", "PutItem", "Query", "Scan", "UpdateItem")
_SQS = {
    "SendMessage": "sqs:SendMessage",
    "SendMessageBatch": "sqs:SendMessage",
    "ReceiveMessage": "sqs:ReceiveMessage",
    "DeleteMessage": "sqs:DeleteMessage",
}
_OBJECTS = {
    "GetObject": "s3:GetObject",
    "HeadObject": "s3:GetObject",
    "PutObject": "s3:PutObject",
    "DeleteObject": "s3:DeleteObject",
}


@dataclass
class Calls:
    """`names`: logical ones of the template, by those that tables, buckets, queues and keys have in these tests.

    `rights`: that each function needs for what it did; `operations`: all that were called, as boto3 spells them;
    `strange`: for which no right is known here.
    """

    names: Mapping[str, str]
    rights: dict[str, set[Right]] = field(default_factory=dict)
    operations: set[str] = field(default_factory=set)
    strange: set[str] = field(default_factory=set)

    def record(self, function: str, client: Any) -> Any:
        """The same client, whose calls are from now on the function's."""
        self.rights.setdefault(function, set())

        def called(params: Mapping[str, Any], model: Any, **_: Any) -> None:
            service, operation = model.service_model.service_name, model.name
            self.operations.add(re.sub(r"(?<!^)(?=[A-Z])", "_", operation).lower())
            self.rights[function] |= set(self._rights(service, operation, params))

        def replied(http_response: Any, model: Any, context: Any, **_: Any) -> None:
            if model.name in ("GetObject", "HeadObject") and http_response.status_code == 404:
                # which AWS tells those alone who may list; others are refused
                self.rights[function].add(Right("s3:ListBucket", self._named(context["llamabda_bucket"])))

        def seen(params: Mapping[str, Any], context: Any, **_: Any) -> None:
            context["llamabda_bucket"] = params.get("Bucket", "")

        events = client.meta.events
        events.register("provide-client-params.*.*", called)
        events.register("before-parameter-build.s3.*", seen)
        events.register("after-call.s3.*", replied)
        return client

    def _rights(self, service: str, operation: str, params: Mapping[str, Any]) -> Iterator[Right]:
        if service == "dynamodb" and operation in _DYNAMODB:
            index = f"/index/{params['IndexName']}" if "IndexName" in params else ""
            yield Right(f"dynamodb:{operation}", self._named(params["TableName"]) + index)
        elif service == "dynamodb" and operation in ("BatchGetItem", "BatchWriteItem"):
            yield from (Right(f"dynamodb:{operation}", self._named(table)) for table in params["RequestItems"])
        elif service == "dynamodb" and operation == "TransactWriteItems":
            for action in params["TransactItems"]:
                ((kind, request),) = action.items()
                yield Right(_TRANSACTED[kind], self._named(request["TableName"]))
        elif service == "s3" and operation in _OBJECTS:
            version = "Version" if params.get("VersionId") else ""
            yield Right(_OBJECTS[operation] + version, f"{self._named(params['Bucket'])}/{params['Key']}")
        elif service == "s3" and operation == "DeleteObjects":
            for one in params["Delete"]["Objects"]:
                yield Right("s3:DeleteObject", f"{self._named(params['Bucket'])}/{one['Key']}")
        elif service == "sqs" and operation in _SQS:
            yield Right(_SQS[operation], self._named(params["QueueUrl"]))
        elif service == "kms" and operation in ("Sign", "GetPublicKey"):
            yield Right(f"kms:{operation}", self._named(params["KeyId"].rpartition("/")[2]))
        else:
            self.strange.add(f"{service}:{operation}")

    def _named(self, name: str) -> str:
        return self.names.get(name, f"unknown {name}")


@contextlib.contextmanager
def process_of(function: str, environment: Mapping[str, str], make: Callable[[str, Any], Any]) -> Iterator[None]:
    """As in a process of that function alone: providers that nobody has used, and nothing in the environment beside
    what the template gives it. `make` is shown each client with the function's name."""
    with pytest.MonkeyPatch.context() as patch:
        for name in set(_SETTINGS) - environment.keys():
            patch.delenv(name, raising=False)
        for name, value in environment.items():
            patch.setenv(name, value)
        settings.cache_clear()
        client = wiring_aws.client

        def recorded(service: str, **more: Any) -> Any:
            made = client(service, **more)
            make(function, made._client)
            return made

        patch.setattr(wiring_aws, "client", recorded)
        for module in (wiring, wiring_aws):
            for name, provider in list(vars(module).items()):
                if isinstance(provider, Once):
                    patch.setattr(module, name, Once(provider._make))
        patch.setattr(wiring, "_space", Background(wiring._loaded_spaces, name="embedder"))
        try:
            yield
        finally:
            if (extractor := wiring.extractor._value) is not None:
                extractor.close()
    settings.cache_clear()


_SETTINGS = (
    *("USERS_TABLE", "CATALOG_TABLE", "TEXT_BUCKET", "BUCKET", "QUEUE_URL", "DEAD_LETTER_URL"),
    *("KMS_KEY_ID", "JWKS_URL", "OPENSEARCH_HOST", "REGISTRATION", "TOKEN_ISSUER"),
)
