"""Calls of one table with the keys `pk` and `sk`, both strings, and what their failures mean."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

from botocore.exceptions import BotoCoreError, ClientError

from llamabda.aws_failures import code, failure
from llamabda.errors import DependencyFailed

Values: TypeAlias = Mapping[str, Any]  # with their types, as the API has them: {"state": {"S": "ready"}}

CONDITIONS = frozenset(("ConditionalCheckFailed", "ConditionalCheckFailedException"))
CONFLICTS = frozenset(("TransactionConflict", "TransactionConflictException", "TransactionInProgressException"))
THROTTLED = frozenset(
    (
        "ProvisionedThroughputExceeded",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "ThrottlingError",
        "ThrottlingException",
    )
)
PASSING = CONDITIONS | CONFLICTS | THROTTLED
_UNFIT = "it cannot hold what is asked: are its keys and its index those of template.yaml (pk and sk, both strings)?"
_ADVICE = {
    "ResourceNotFoundException": "there is no such table, or index of it, in this account and region",
    "ValidationException": _UNFIT,
    "ValidationError": f"{_UNFIT} An item may have 400 KB",
    **dict.fromkeys(THROTTLED, "it has more to do than it takes"),
}
_CANCELLED = "TransactionCanceledException"
_NAME = re.compile(r"#(\w+)")


class Key(NamedTuple):
    pk: str
    sk: str

    @property
    def item(self) -> dict[str, Any]:
        return {"pk": {"S": self.pk}, "sk": {"S": self.sk}}


class Refused(Exception):
    """Nothing was done, for reasons that may pass.

    `codes`: AWS's, of each write that stood in the way, by its place; `items`: those whose conditions failed, as they
    are; None: there is none, or it was not asked for. `failure`: what to raise where nobody waits for them to pass.
    """

    def __init__(self, codes: Mapping[int, str], items: Mapping[int, Values | None], failure: DependencyFailed) -> None:
        super().__init__(", ".join(sorted(set(codes.values()))))
        self.codes = codes
        self.items = items
        self.failure = failure


class Calls:
    """`client`: boto3's for DynamoDB. `dependency` names the port in errors, `setting` what named the table."""

    def __init__(self, client: Any, name: str, *, dependency: str, setting: str) -> None:
        self.name = name
        self._client = client
        self._dependency = dependency
        self._what = f"the table {name} ({setting})"

    def ask(self, operation: str, **request: Any) -> Mapping[str, Any]:
        """The reply. Refused, or DependencyFailed for whatever will not pass by itself, or was tried often enough."""
        try:
            reply: Mapping[str, Any] = getattr(self._client, operation)(**request)
        except ClientError as exc:
            raise self._refusal(exc) from None
        except BotoCoreError as exc:
            raise failure(exc, what=self._what, dependency=self._dependency)  # noqa: B904  (it carries its cause)
        kind = str(reply["ResponseMetadata"]["HTTPHeaders"].get("content-type"))
        if not kind.startswith("application/x-amz-json"):
            raise self.failed("the answer is not from DynamoDB")
        return reply

    def failed(self, reason: str) -> DependencyFailed:
        return DependencyFailed(f"{self._what} failed: {reason}", dependency=self._dependency)

    def _refusal(self, exc: ClientError) -> Refused | DependencyFailed:
        reasons = _reasons(exc)
        codes = {place: str(reason.get("Code")) for place, reason in reasons.items()}
        # where one part would fail for ever, the others do not matter
        lasting = sorted({name for name in codes.values() if name not in PASSING})
        told = [
            f"{name}: {_ADVICE[name]}" if name in _ADVICE else name for name in lasting or sorted(set(codes.values()))
        ]
        advice = _ADVICE | ({_CANCELLED: ", ".join(told)} if told else {})
        found = failure(exc, what=self._what, dependency=self._dependency, advice=advice)
        if lasting or not codes:
            return found
        items = {place: reasons[place].get("Item") for place, name in codes.items() if name in CONDITIONS}
        return Refused(codes, items, found)


def _reasons(exc: ClientError) -> dict[int, Mapping[str, Any]]:
    """Why a transaction was cancelled, or a single call refused, by the place of the write."""
    if code(exc) != _CANCELLED:
        return {0: {**exc.response, "Code": code(exc)}}
    reasons = exc.response.get("CancellationReasons") or ()
    return {place: reason for place, reason in enumerate(reasons) if reason.get("Code") != "None"}


def placeholders(values: Values, *expressions: str, names: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What the expressions refer to, and nothing else, which the API would refuse. An attribute is always written
    "#name", for a good part of all English words is reserved; `names` says which one that is where it is not of that
    name. `values`: by their placeholders, ":value"."""
    used = {name for expression in expressions for name in _NAME.findall(expression)}
    given = {f"#{name}": (names or {}).get(f"#{name}", name) for name in used}
    return {
        **({"ExpressionAttributeNames": given} if given else {}),
        **({"ExpressionAttributeValues": dict(values)} if values else {}),
    }
