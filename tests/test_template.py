"""The template describes what the code is."""

from __future__ import annotations

import re
from typing import Any

import pytest
from llamabda_functions.ask.app import app as ask
from llamabda_functions.auth.app import app as auth
from llamabda_functions.ingest.app import app as ingest

from llamabda.on_lambda import NEEDED
from llamabda.settings import Settings
from scripts.local import template

TEMPLATE = template.read()
RESOURCES: dict[str, Any] = TEMPLATE["Resources"]
FUNCTIONS = {"auth": ("AuthFunction", auth), "ingest": ("IngestFunction", ingest), "ask": ("AskFunction", ask)}
PUBLIC = {
    "/health",
    "/health/ready",
    "/docs",
    "/openapi.json",
    "/.well-known/openid-configuration",
    "/.well-known/jwks.json",
    "/auth/register",
    "/auth/login",
    "/auth/refresh",
    "/auth/logout",
}


def served(app: Any) -> set[tuple[str, str]]:
    """Method and path of each route, as an HTTP API writes them."""
    found = set()
    stack = list(app.routes)
    while stack:
        route = stack.pop()
        if inner := getattr(getattr(route, "original_router", None), "routes", None) or getattr(route, "routes", None):
            stack += inner
            continue
        path = re.sub(r"\{(\w+):path\}", r"{\1+}", route.path)
        found |= {(method, path) for method in route.methods - {"HEAD"}}
    return found


def described(logical: str) -> dict[tuple[str, str], dict[str, Any]]:
    events = RESOURCES[logical]["Properties"]["Events"].values()
    http = [event["Properties"] for event in events if event["Type"] == "HttpApi"]
    return {(event["Method"], event["Path"]): event for event in http}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_route_is_in_the_template_and_no_other(function):
    logical, app = FUNCTIONS[function]
    assert set(described(logical)) == served(app)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_token_is_asked_for_at_every_route_but_the_public_ones(function):
    for (_, path), event in described(FUNCTIONS[function][0]).items():
        assert event.get("Auth") == ({"Authorizer": "NONE"} if path in PUBLIC else None), path
        assert event["ApiId"] == {"Ref": "Api"}


def test_the_token_is_asked_for_by_default():
    given = RESOURCES["Api"]["Properties"]
    assert given["Auth"]["DefaultAuthorizer"] in given["Auth"]["Authorizers"]
    assert given["FailOnWarnings"] is True


def environment(function: str) -> dict[str, Any]:
    shared = TEMPLATE["Globals"]["Function"]["Environment"]["Variables"]
    own = RESOURCES[FUNCTIONS[function][0]]["Properties"].get("Environment", {}).get("Variables", {})
    return {**shared, **own}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_gets_what_it_needs_and_only_settings_that_there_are(function):
    given = environment(function)
    assert set(NEEDED[function]) <= set(given)
    assert {name.lower() for name in given} <= set(Settings.model_fields)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_images_are_made_of_their_targets(function):
    resource = RESOURCES[FUNCTIONS[function][0]]
    assert resource["Properties"]["PackageType"] == "Image"
    assert resource["Metadata"]["DockerBuildTarget"] == function


def test_a_message_stays_hidden_longer_than_its_function_may_run():
    timeout = TEMPLATE["Parameters"]["IngestTimeout"]
    assert RESOURCES["WorkQueue"]["Properties"]["VisibilityTimeout"] >= 6 * timeout["Default"]
    assert RESOURCES["WorkQueue"]["Properties"]["RedrivePolicy"]["maxReceiveCount"] == 3


def test_the_bucket_that_is_read_from_is_not_the_one_that_is_written_to():
    names = {environment("ingest")[name]["Ref"] for name in ("BUCKET", "TEXT_BUCKET")}
    assert len(names) == 2
    assert "NotificationConfiguration" not in RESOURCES["TextBucket"].get("Properties", {})
