"""The template's resources, made in moto by CloudFormation, and functions that may do what their roles there allow."""

from __future__ import annotations

import ast
import io
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from botocore.exceptions import ClientError

from scripts.local import template
from scripts.local.pump import Pump
from tests.aws import REGION, Aws
from tests.http.calls import Calls, Right, process_of
from tests.http.test_bundle_handlers import Bundle
from tests.http.test_lambda import Context

STACK = "llamabda"
ACCOUNT = "123456789012"  # moto's
# what moto's CloudFormation makes of those that the template has, but for event source mappings: it would serve them
MADE = {
    "AWS::DynamoDB::Table",
    "AWS::Events::Rule",
    "AWS::IAM::Role",
    "AWS::Lambda::Function",
    "AWS::Logs::LogGroup",
    "AWS::S3::Bucket",
    "AWS::SQS::Queue",
}
_KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/{{}}"
PARAMETERS = {"OpenSearchMode": "existing", "OpenSearchHost": "https://search.example.org"}


def makeable(transformed: Mapping[str, Any], literals: Mapping[str, str]) -> dict[str, Any]:
    """What of the template moto can make. `literals`: what stands for what it cannot, and for attributes of that."""
    found = template.chosen(transformed, template.conditions(transformed, PARAMETERS))
    made = {name: one for name, one in found["Resources"].items() if one["Type"] in MADE}
    # moto would have the schedule's rule match the bucket's events, too
    made = {name: one for name, one in made.items() if "ScheduleExpression" not in one["Properties"]}
    for one in made.values():
        one.pop("DependsOn", None)
    return {"Parameters": found["Parameters"], "Resources": _with_literals(made, literals)}


def _with_literals(value: Any, literals: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"Ref"}:
            return literals.get(value["Ref"], value)
        if value.keys() == {"Fn::GetAtt"}:
            given = value["Fn::GetAtt"]
            return literals.get(given if isinstance(given, str) else ".".join(given), value)
        return {key: _with_literals(part, literals) for key, part in value.items()}
    return [_with_literals(one, literals) for one in value] if isinstance(value, list) else value


@dataclass
class Guard(Calls):
    """Refuses at the client what a function's role does not allow, on the resource by its ARN.

    moto's own enforcement compares each statement's resources with "*", and so would refuse all that are named.
    """

    allowed: dict[str, set[Right]] = field(default_factory=dict)
    refused: list[Right] = field(default_factory=list)

    def record(self, function: str, client: Any) -> Any:
        def called(params: Mapping[str, Any], model: Any, **_: Any) -> None:
            for need in self._rights(model.service_model.service_name, model.name, params):
                self._check(function, need, model.name)

        def replied(http_response: Any, model: Any, context: Any, **_: Any) -> None:
            # AWS says what is not there to those alone who may list
            if model.name in ("GetObject", "HeadObject") and http_response.status_code == 404:
                self._check(function, Right("s3:ListBucket", self._named(context["llamabda_bucket"])), model.name)

        client.meta.events.register("provide-client-params.*.*", called)
        super().record(function, client)
        client.meta.events.register_last("after-call.s3.*", replied)
        return client

    def _check(self, function: str, need: Right, operation: str) -> None:
        given = self.allowed[function]
        if not any(one.action == need.action and fnmatchcase(need.resource, one.resource) for one in given):
            self.refused.append(need)
            raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, operation)


@dataclass
class Deployed:
    """`physical`: ids of resources by their logical names. `functions`: their environments, as they were resolved."""

    aws: Aws
    physical: Mapping[str, str]
    functions: Mapping[str, Mapping[str, str]]
    guard: Guard

    def process(self, function: str) -> AbstractContextManager[None]:
        # the index is embedded here, which is no matter of rights that roles hold
        given = {name: value for name, value in self.functions[function].items() if not name.startswith("OPENSEARCH_")}
        return process_of(function, given | {"AWS_ENDPOINT_URL": self.aws.endpoint}, self.guard.record)

    def http(self, function: str, made: dict[str, Any]) -> tuple[int, Any]:
        with self.process(function):
            reply = Bundle.handler(function)(made, Context(30_000))
        body = reply["body"]
        return reply["statusCode"], json.loads(body) if body.startswith(("{", "[")) else body

    def invoke(self, *, FunctionName: str, Payload: str) -> dict[str, Any]:  # noqa: N803  (as boto3 has it)
        assert FunctionName == self.physical["IngestFunction"]
        with self.process("ingest"):
            reply = Bundle.handler("ingest")(json.loads(Payload), Context(300_000))
        return {"Payload": io.BytesIO(json.dumps(reply).encode())}

    def pump(self) -> None:
        """Brings everything that waits in the queue."""
        queues = self.aws.client("sqs")
        url, name = self.physical["WorkQueue"], self.physical["IngestFunction"]
        while Pump(queues, url, self, name, say=lambda line: None).once():
            pass

    def failures(self) -> list[dict[str, Any]]:
        reply = self.aws.client("sqs").receive_message(
            QueueUrl=self.physical["DeadLetterQueue"], MaxNumberOfMessages=10, MessageAttributeNames=["All"]
        )
        return list(reply.get("Messages", []))


def deploy(aws: Aws, transformed: Mapping[str, Any], literals: Mapping[str, str]) -> Deployed:
    cloud = aws.client("cloudformation")
    blue = _key(aws, transformed)
    literals = {**literals, "BlueKey": blue, "BlueKey.Arn": _KEY.format(blue)}
    given = [{"ParameterKey": name, "ParameterValue": value} for name, value in PARAMETERS.items()]
    body = json.dumps(makeable(transformed, literals))
    cloud.create_stack(StackName=STACK, TemplateBody=body, Parameters=given)
    made = cloud.describe_stack_resources(StackName=STACK)["StackResources"]
    physical = {one["LogicalResourceId"]: one["PhysicalResourceId"] for one in made} | {"BlueKey": blue}
    roles, functions, allowed = aws.client("iam"), {}, {}
    for one in made:
        if one["ResourceType"] == "AWS::Lambda::Function":
            name = one["LogicalResourceId"].removesuffix("Function").lower()
            found = aws.client("lambda").get_function_configuration(FunctionName=one["PhysicalResourceId"])
            functions[name] = {key: str(value) for key, value in found["Environment"]["Variables"].items()}
            allowed[name] = _rights(roles, found["Role"].rpartition("/")[2])
    _finish_the_bucket(aws, transformed, physical["DocumentBucket"])
    return Deployed(aws, physical, functions, Guard(names=_arns(made) | {blue: _KEY.format(blue)}, allowed=allowed))


def _key(aws: Aws, transformed: Mapping[str, Any]) -> str:
    """As the template has it: moto's CloudFormation makes keys of another kind."""
    described = transformed["Resources"]["BlueKey"]["Properties"]
    made = aws.client("kms").create_key(KeySpec=described["KeySpec"], KeyUsage=described["KeyUsage"])
    return str(made["KeyMetadata"]["KeyId"])


def _rights(roles: Any, role: str) -> set[Right]:
    """What the role allows, as it was made."""
    found = set()
    for policy in roles.list_role_policies(RoleName=role)["PolicyNames"]:
        document = roles.get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"]
        # moto keeps what CloudFormation gives it as Python writes it
        document = ast.literal_eval(document) if isinstance(document, str) else document
        for statement in document["Statement"]:
            assert statement["Effect"] == "Allow"
            for action in _listed(statement["Action"]):
                found |= {Right(action, resource) for resource in _listed(statement["Resource"])}
    return found


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _arns(made: list[dict[str, Any]]) -> dict[str, str]:
    """By what calls name."""
    kinds = {
        "AWS::DynamoDB::Table": f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{{}}",
        "AWS::S3::Bucket": "arn:aws:s3:::{}",
        "AWS::SQS::Queue": f"arn:aws:sqs:{REGION}:{ACCOUNT}:{{}}",
    }
    ids = {one["PhysicalResourceId"]: kinds[one["ResourceType"]] for one in made if one["ResourceType"] in kinds}
    return {name: arn.format(name.rpartition("/")[2]) for name, arn in ids.items()}


def _finish_the_bucket(aws: Aws, transformed: Mapping[str, Any], bucket: str) -> None:
    """What moto leaves out. Versions are not kept here: moto tells nobody of a delete marker."""
    described = transformed["Resources"]["DocumentBucket"]["Properties"]
    assert described["NotificationConfiguration"] == {"EventBridgeConfiguration": {"EventBridgeEnabled": True}}
    aws.client("s3").put_bucket_notification_configuration(
        Bucket=bucket, NotificationConfiguration={"EventBridgeConfiguration": {}}
    )
