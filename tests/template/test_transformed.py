"""template.yaml as AWS transforms it, in every combination of its conditions."""

from __future__ import annotations

import copy
import json
import re

import pytest
from llamabda_functions.ask.app import app as ask
from llamabda_functions.auth.app import app as auth
from llamabda_functions.ingest.app import app as ingest

from scripts.local import template
from scripts.template import graph
from tests.test_template import PUBLIC, served

SERVED = {"AuthFunction": served(auth), "IngestFunction": served(ingest), "AskFunction": served(ask)}


def routes(made: dict) -> dict[tuple[str, str], dict]:
    paths = made["Resources"]["Api"]["Properties"]["Body"]["paths"]
    return {(method.upper(), path): one for path, methods in paths.items() for method, one in methods.items()}


def test_in_no_combination_of_conditions_do_resources_wait_for_each_other(combinations):
    assert [(one.parameters, one.cycle) for one in combinations if one.cycle] == []


def test_in_no_combination_of_conditions_is_there_a_reference_to_nothing(combinations):
    assert [(one.parameters, one.unknown) for one in combinations if one.unknown] == []


def test_every_condition_holds_in_some_combination_and_in_some_it_does_not(transformed, combinations):
    held = [template.conditions(transformed, one.parameters) for one in combinations]
    assert [name for name in transformed["Conditions"] if len({one[name] for one in held}) < 2] == []


@pytest.mark.parametrize(
    ("resource", "refers_to"),
    [("IssuerFunction", "Api"), ("DocumentBucket", "ObjectEvents"), ("AskRole", "Domain"), ("IngestRole", "WorkQueue")],
)
def test_a_cycle_is_found_wherever_it_comes_about(transformed, resource, refers_to):
    broken = copy.deepcopy(transformed)
    properties = broken["Resources"][resource]["Properties"]
    properties["Mutated"] = [{"Fn::If": ["BlueSigns", {"Fn::Sub": f"arn:${{{refers_to}.Arn}}"}, "none"]}]
    if refers_to == "WorkQueue":
        broken["Resources"]["WorkQueue"]["DependsOn"] = [resource]
    found = next(cycle for _, made in graph.every(broken) if (cycle := graph.cycle(made)))
    assert {resource, refers_to} <= set(found)


def test_an_issuer_that_is_the_api_itself_is_a_cycle(transformed):
    broken = copy.deepcopy(transformed)
    broken["Resources"]["Issuer"]["Properties"]["Address"] = {"Fn::Sub": "https://${Api}.example.org"}
    assert any(graph.cycle(made) for _, made in graph.every(broken))


@pytest.mark.parametrize("name", ["Domain", "Collection", "GreenKey", "Topic", "Issuer"])
def test_a_reference_without_its_condition_is_found(transformed, name):
    broken = copy.deepcopy(transformed)
    broken["Outputs"]["Mutated"] = {"Value": {"Ref": name}}
    assert any(graph.unknown(made) == {name} for _, made in graph.every(broken))


def test_routes_are_those_that_the_functions_serve(transformed):
    found: dict[str, set] = {name: set() for name in SERVED}
    for key, route in routes(transformed).items():
        (function,) = set(graph.references(route)) - {"AWS::Partition", "AWS::Region"}
        found[function].add(key)
    assert found == SERVED


def test_every_route_asks_for_a_token_but_the_public_ones(transformed):
    open_ones = {
        path for (_, path), route in routes(transformed).items() if {"AccessToken": []} not in route["security"]
    }
    assert open_ones == PUBLIC
    schemes = transformed["Resources"]["Api"]["Properties"]["Body"]["components"]["securitySchemes"]
    assert set(schemes["AccessToken"]["x-amazon-apigateway-authorizer"]["jwtConfiguration"]) == {"issuer", "audience"}


def test_the_api_is_made_after_what_its_tokens_are_checked_with(combinations):
    for one in combinations:
        own = one.parameters["TokenIssuer"] == ""
        assert ("Issuer" in one.api) is own
        assert ("IssuerDistribution" in one.resources) is own
        assert ("IssuerFunction" in one.resources) is own


def test_nothing_is_added_to_the_roles_that_the_template_writes(transformed):
    written = {name for name, one in template.read()["Resources"].items() if one["Type"] == "AWS::IAM::Role"}
    roles = {name: one for name, one in transformed["Resources"].items() if one["Type"] == "AWS::IAM::Role"}
    assert set(roles) == written
    assert [name for name, one in roles.items() if "ManagedPolicyArns" in one["Properties"]] == []


def test_pages_of_other_origins_may_call_when_they_are_named_and_else_none(combinations):
    for one in combinations:
        if one.parameters["CorsOrigins"] == "":
            assert one.cors is None
        else:
            assert one.cors["allowOrigins"].keys() == {"Fn::Split"}
            assert {"allowMethods", "allowHeaders", "exposeHeaders", "maxAge"} < one.cors.keys()


def test_the_access_log_holds_nothing_that_a_client_sent(transformed):
    text = transformed["Resources"]["ApiApiGatewayDefaultStage"]["Properties"]["AccessLogSettings"]["Format"]
    told = set(re.findall(r"\$context\.([\w.]+)", text))
    assert told == {
        *("requestId", "requestTimeEpoch", "identity.sourceIp", "routeKey", "status", "responseLength"),
        *("responseLatency", "integrationLatency", "authorizer.error", "integrationErrorMessage"),
    }
    assert set(re.findall(r"\$(\w+)", text)) == {"context"}


def test_the_dashboard_is_json_and_shows_metrics_of_what_is_there(transformed):
    body = transformed["Resources"]["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
    widgets = json.loads(body)["widgets"]
    assert len(widgets) == 9
    assert all(one["properties"]["metrics"] for one in widgets)
