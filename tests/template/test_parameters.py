"""What template.yaml takes, and what it refuses before anything is made."""

from __future__ import annotations

import re

import pytest

from scripts.local import template
from scripts.template import graph

TEMPLATE = template.read()
EXISTING = {"OpenSearchMode": "existing", "OpenSearchHost": "https://search.example.org"}
ARN = "arn:aws:es:eu-west-1:123456789012:domain/llamabda"
SECRET = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:index-AbCdEf"
OPERATOR = "arn:aws:iam::123456789012:role/operations"


@pytest.mark.parametrize(
    ("parameters", "why"),
    [
        ({"OpenSearchMode": "existing"}, "OpenSearchHost"),
        ({"OpenSearchHost": "https://search.example.org"}, "OpenSearchHost"),
        ({"OpenSearchMode": "serverless", "OpenSearchArn": ARN}, "OpenSearchArn"),
        ({"OpenSearchService": "es"}, "OpenSearchService"),
        ({"OpenSearchSecret": SECRET}, "OpenSearchSecret is for an existing one"),
        (EXISTING | {"OpenSearchSecret": SECRET, "OpenSearchArn": ARN}, "not signed"),
        (EXISTING | {"OpenSearchSecret": SECRET, "OpenSearchService": "es"}, "not signed"),
        (EXISTING | {"Operator": OPERATOR}, "Operator is let into a new index"),
        ({"AlarmEmail": "a@example.org", "AlarmTopic": "arn:aws:sns:eu-west-1:123456789012:alarms"}, "not both"),
    ],
)
def test_parameters_that_contradict_each_other_are_refused_before_anything_is_made(parameters, why):
    (told,) = graph.refused(TEMPLATE, parameters)
    assert why in told


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"OpenSearchMode": "serverless"},
        EXISTING,
        EXISTING | {"OpenSearchArn": ARN},
        EXISTING | {"OpenSearchSecret": SECRET},
        {"AlarmEmail": "a@example.org"},
        {"Operator": OPERATOR},
        {"OpenSearchMode": "serverless", "Operator": OPERATOR},
        template.local_parameters(),
    ],
)
def test_parameters_that_fit_are_taken(parameters):
    assert graph.refused(TEMPLATE, parameters) == []


VALUES = {
    "Operator": (
        ["", OPERATOR, "arn:aws-cn:iam::123456789012:user/paths/ana@example.org"],
        ["operations", "arn:aws:iam::1:role/x", "arn:aws:iam::123456789012:root", f"{OPERATOR} "],
    ),
    "BaseImage": (
        ["python:3.13-slim-trixie", "registry.example.org/python:3.13", f"python@sha256:{'a' * 64}"],
        ["", "Python:3", "python@sha256:abc", "python:3.13 slim"],
    ),
    "TokenIssuer": (
        ["", "https://login.example.org", "https://a.b/c/d"],
        ["http://a.b", "https://a.b/", "https://a.b?c"],
    ),
    "CorsOrigins": (
        ["", "https://a.b", "https://a.b,http://localhost:3000"],
        ["*", "https://a.b/", "https://a.b,", "a.b"],
    ),
    "OpenSearchHost": (["", "https://a.b:9200/c", "http://opensearch:9200"], ["a.b", "https://u:p@a.b", "https://a b"]),
    "OpenSearchArn": (["", ARN], ["arn:aws:s3:::bucket", ARN + "/*"]),
    "OpenSearchSecret": (["", SECRET], ["secret", SECRET + "*"]),
    "OpenSearchVersion": (["OpenSearch_2.19", "OpenSearch_3.1"], ["OpenSearch_2.17", "Elasticsearch_7.10", "3.1"]),
    "AlarmEmail": (["", "a@example.org"], ["a", "a@b", "a b@example.org"]),
    "IndexName": (["llamabda", "a-b_1"], ["", "A", "-a", "a" * 101]),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_pattern_takes_what_fits_and_refuses_what_does_not(name):
    parameter = TEMPLATE["Parameters"][name]
    good, bad = VALUES[name]
    pattern = re.compile(parameter["AllowedPattern"])
    assert [value for value in good if not pattern.fullmatch(value)] == []
    assert [value for value in bad if pattern.fullmatch(value)] == []


def test_every_parameter_is_described_bounded_and_in_a_group():
    grouped = [
        name
        for group in TEMPLATE["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
        for name in group["Parameters"]
    ]
    assert sorted(grouped) == sorted(TEMPLATE["Parameters"])
    for name, one in TEMPLATE["Parameters"].items():
        assert one["Description"], name
        assert "AllowedValues" in one or "AllowedPattern" in one or {"MinValue", "MaxValue"} <= one.keys(), name
        assert ("ConstraintDescription" in one) or "AllowedPattern" not in one, name
        if "AllowedPattern" in one:
            assert re.fullmatch(one["AllowedPattern"], str(one["Default"])), name


def test_a_stack_on_one_machine_has_nothing_that_only_the_cloud_has():
    described = template.chosen(TEMPLATE, template.conditions(TEMPLATE, template.local_parameters()))
    kinds = {one["Type"] for one in described["Resources"].values()}
    assert not any(kind.startswith(("AWS::CloudFront", "AWS::OpenSearch", "Custom::")) for kind in kinds)
    functions = {name for name, one in described["Resources"].items() if one["Type"] == "AWS::Serverless::Function"}
    assert functions == {"AuthFunction", "IngestFunction", "AskFunction"}
    assert "Fn::If" not in str(described)
