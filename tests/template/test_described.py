"""template.yaml as it is written: what is kept, who may do what, and what parameters are refused."""

from __future__ import annotations

import ast
import copy
from typing import Any

import pytest

from scripts.local import template
from scripts.template import roles

ROOT = template.ROOT
TEMPLATE = template.read()
RESOURCES: dict[str, Any] = TEMPLATE["Resources"]
KEPT = {"UsersTable", "CatalogTable", "DocumentBucket", "TextBucket", "BlueKey", "GreenKey"}
POLICIES = {  # where each kind of resource keeps what it allows
    "AWS::S3::BucketPolicy": "PolicyDocument",
    "AWS::SQS::QueuePolicy": "PolicyDocument",
    "AWS::SNS::TopicPolicy": "PolicyDocument",
    "AWS::OpenSearchService::Domain": "AccessPolicies",
}


def of_type(kind: str) -> dict[str, Any]:
    found = {name: one for name, one in RESOURCES.items() if one["Type"] == kind}
    assert found, kind
    return found


FUNCTIONS = of_type("AWS::Serverless::Function")


def every_statement(resources: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Without conditions: what is only sometimes said is said, too."""
    found = []
    for name, resource in resources.items():
        properties = resource.get("Properties", {})
        if resource["Type"] in ("AWS::IAM::Role", "AWS::Serverless::Function"):
            documents = [policy["PolicyDocument"] for policy in properties.get("Policies", ())]
        elif resource["Type"] in POLICIES:
            documents = [properties[POLICIES[resource["Type"]]]]
        else:
            documents = []
        for document in documents:
            for one in document["Statement"]:
                found += [(name, part) for part in alternatives(one)]
    return found


def alternatives(statement: Any) -> list[dict[str, Any]]:
    if statement.keys() == {"Fn::If"}:
        return [found for part in statement["Fn::If"][1:] for found in alternatives(part)]
    return [] if statement.keys() == {"Ref"} else [statement]


def either(value: Any) -> list[Any]:
    """Every resource that is named, whichever condition holds."""
    if isinstance(value, list):
        return [found for part in value for found in either(part)]
    if isinstance(value, dict) and value.keys() == {"Fn::If"}:
        return either(value["Fn::If"][1:])
    return [] if value == {"Ref": "AWS::NoValue"} else [value]


# -- rights


def wide(resources: dict[str, Any]) -> list[tuple[str, str]]:
    found = []
    for name, statement in every_statement(resources):
        found += [
            (name, what) for what in roles.too_wide(statement | {"Resource": either(statement.get("Resource", []))})
        ]
    return found


def test_nothing_is_allowed_on_everything_where_it_can_be_named():
    assert len(every_statement(RESOURCES)) > 30
    assert wide(RESOURCES) == []
    for key in of_type("AWS::KMS::Key").values():  # a key's own policy cannot name it, and without this nobody has it
        (only,) = key["Properties"]["KeyPolicy"]["Statement"]
        assert only["Principal"] == {"AWS": {"Fn::Sub": "arn:${AWS::Partition}:iam::${AWS::AccountId}:root"}}


@pytest.mark.parametrize(
    ("changed", "value"),
    [
        ("Resource", "*"),
        ("Resource", ["*"]),
        ("Resource", [{"Fn::If": ["WithBlue", "*", {"Ref": "AWS::NoValue"}]}]),
        ("Resource", "arn:*"),
        ("Action", "dynamodb:*"),
        ("Action", ["dynamodb:GetItem", "*"]),
        ("NotAction", ["dynamodb:DeleteTable"]),
        ("Principal", "*"),
        ("Principal", {"AWS": "*"}),
    ],
)
def test_what_is_too_wide_is_found(changed, value):
    broken = copy.deepcopy(RESOURCES)
    broken["AskRole"]["Properties"]["Policies"][0]["PolicyDocument"]["Statement"][1][changed] = value
    assert [name for name, _ in wide(broken)] == ["AskRole"]


def test_every_function_has_a_role_of_its_own_and_logs_of_its_own():
    found = {name: (one["Properties"]["Role"], one["Properties"]["LoggingConfig"]) for name, one in FUNCTIONS.items()}
    assert found == {
        f"{name}Function": ({"Fn::GetAtt": [f"{name}Role", "Arn"]}, {"LogGroup": {"Ref": f"{name}Logs"}})
        for name in ("Auth", "Ingest", "Ask", "Issuer")
    }


def test_the_index_lets_in_the_functions_that_use_it_with_what_they_send():
    """Requests to it are none of boto3's: their methods are read from the adapter."""
    sent = set()
    for path in (ROOT / "layers" / "shared" / "llamabda" / "adapters" / "opensearch").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and node.value in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"):
                sent.add(node.value)
    actions = {f"es:ESHttp{method.capitalize()}" for method in sent}
    ingest, ask, operator = RESOURCES["Domain"]["Properties"]["AccessPolicies"]["Statement"]
    condition, named, nobody = operator["Fn::If"]
    assert (condition, nobody) == ("WithOperator", {"Ref": "AWS::NoValue"})
    assert named["Principal"] == {"AWS": {"Ref": "Operator"}}
    assert named["Action"] == ingest["Action"]
    assert ingest["Principal"] == {"AWS": {"Fn::GetAtt": ["IngestRole", "Arn"]}}
    assert ask["Principal"] == {"AWS": {"Fn::GetAtt": ["AskRole", "Arn"]}}
    assert set(ingest["Action"]) == actions
    assert set(ask["Action"]) == actions - {"es:ESHttpDelete"}  # indexes are dropped by the sweep alone
    for name, statement in (("IngestRole", ingest), ("AskRole", ask)):
        given = [one for role, one in every_statement({name: RESOURCES[name]}) if "aoss:APIAccessAll" in one["Action"]]
        existing = [one for one in given if one["Resource"] != {"Fn::GetAtt": ["Collection", "Arn"]}]
        assert [set(one["Action"]) for one in existing] == [{*statement["Action"], "aoss:APIAccessAll"}]


# -- what is kept, and how


def test_what_cannot_be_made_again_outlives_the_stack():
    for name, resource in RESOURCES.items():
        if resource["Type"] in ("AWS::DynamoDB::Table", "AWS::S3::Bucket", "AWS::KMS::Key"):
            policies = (resource["DeletionPolicy"], resource["UpdateReplacePolicy"])
            assert policies == (("RetainExceptOnCreate", "Retain") if name in KEPT else ("Delete", "Delete")), name
    assert {*of_type("AWS::DynamoDB::Table"), *of_type("AWS::KMS::Key")} <= KEPT


def test_tables_can_be_restored_and_are_paid_by_use():
    for name, table in of_type("AWS::DynamoDB::Table").items():
        given = table["Properties"]
        assert given["BillingMode"] == "PAY_PER_REQUEST", name
        assert given["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}, name
        assert given["SSESpecification"] == {"SSEEnabled": True}, name
    assert RESOURCES["UsersTable"]["Properties"]["TimeToLiveSpecification"]["AttributeName"] == "expires"


def refuses_plain_http(kind: str, name: str) -> bool:
    """Whether the policy of a bucket or queue denies everything that comes without TLS."""
    (policy,) = (one for key, one in of_type(kind).items() if key == f"{name}Policy")
    found = [one for one in policy["Properties"]["PolicyDocument"]["Statement"] if one["Effect"] == "Deny"]
    return len(found) == 1 and found[0]["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_buckets_are_private_encrypted_and_reached_by_tls_alone():
    for name, bucket in of_type("AWS::S3::Bucket").items():
        given = bucket["Properties"]
        assert set(given["PublicAccessBlockConfiguration"].values()) == {True}, name
        assert given["BucketEncryption"]["ServerSideEncryptionConfiguration"], name
        assert given["OwnershipControls"] == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}, name
        assert refuses_plain_http("AWS::S3::BucketPolicy", name), name


def test_queues_are_encrypted_and_reached_by_tls_alone():
    for name, queue in of_type("AWS::SQS::Queue").items():
        assert queue["Properties"]["SqsManagedSseEnabled"] is True, name
        assert refuses_plain_http("AWS::SQS::QueuePolicy", name), name


def test_a_new_domain_is_encrypted_and_reached_by_tls_alone():
    given = RESOURCES["Domain"]["Properties"]
    assert given["EncryptionAtRestOptions"] == given["NodeToNodeEncryptionOptions"] == {"Enabled": True}
    assert given["DomainEndpointOptions"]["EnforceHTTPS"] is True
    assert given["DomainEndpointOptions"]["TLSSecurityPolicy"].startswith("Policy-Min-TLS-1-2")


def test_messages_fail_alone_and_no_more_than_three_times():
    work = FUNCTIONS["IngestFunction"]["Properties"]["Events"]["Work"]["Properties"]
    assert work["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert work["ScalingConfig"] == {"MaximumConcurrency": {"Ref": "IngestConcurrency"}}
    redrive = {"deadLetterTargetArn": {"Fn::GetAtt": ["DeadLetterQueue", "Arn"]}, "maxReceiveCount": 3}
    assert RESOURCES["WorkQueue"]["Properties"]["RedrivePolicy"] == redrive


def test_the_sweep_comes_every_hour():
    sweep = FUNCTIONS["IngestFunction"]["Properties"]["Events"]["Sweep"]
    assert sweep == {"Type": "Schedule", "Properties": {"Schedule": "rate(1 hour)", "Input": '{"llamabda": "sweep"}'}}


def test_events_that_reach_no_queue_are_kept():
    (target,) = RESOURCES["ObjectEvents"]["Properties"]["Targets"]
    assert target["Arn"] == {"Fn::GetAtt": ["WorkQueue", "Arn"]}
    assert target["DeadLetterConfig"] == {"Arn": {"Fn::GetAtt": ["DeadLetterQueue", "Arn"]}}


def test_a_message_is_hidden_six_times_as_long_as_the_longest_batch():
    assert (
        RESOURCES["WorkQueue"]["Properties"]["VisibilityTimeout"]
        >= 6 * TEMPLATE["Parameters"]["IngestTimeout"]["MaxValue"]
    )


def test_logs_are_kept_for_as_long_as_the_parameter_says():
    for name, group in of_type("AWS::Logs::LogGroup").items():
        assert group["Properties"]["RetentionInDays"] == {"Ref": "LogDays"}, name


def test_alarms_are_about_what_there_is_and_told_to_whom_the_parameters_name():
    told = {
        "Fn::If": [
            "NewTopic",
            [{"Ref": "Topic"}],
            {"Fn::If": ["GivenTopic", [{"Ref": "AlarmTopic"}], {"Ref": "AWS::NoValue"}]},
        ]
    }
    found = of_type("AWS::CloudWatch::Alarm")
    assert {one["Properties"]["MetricName"] for one in found.values()} >= {
        *("ApproximateNumberOfMessagesVisible", "ApproximateAgeOfOldestMessage"),
        *("Errors", "Throttles", "DeadlineReplies", "5xx"),
    }
    for name, alarm in found.items():
        assert alarm["Properties"]["AlarmActions"] == alarm["Properties"]["OKActions"] == told, name
