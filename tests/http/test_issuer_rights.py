"""The issuer's role allows what the issuer does, and nothing that it never does."""

from __future__ import annotations

import pytest

from scripts.local import template
from scripts.template import roles
from tests.http.calls import Calls, process_of
from tests.http.test_rights import BY_THE_ISSUER, missing, unused

pytest.importorskip("llamabda_functions.auth.issuer", reason="there is no issuer in this checkout")

from tests.http.issuer_stage import BUCKET
from tests.http.test_issuer_resource import stage

__all__ = ["stage"]


def test_its_role_allows_what_it_does_and_nothing_else(stage):
    blue, green = stage.key(), stage.key()
    calls = Calls({BUCKET: "IssuerBucket", blue: "BlueKey", green: "GreenKey"})
    with process_of("issuer", {}, calls.record):
        assert stage.deploy(blue)["Status"] == "SUCCESS"
        assert stage.deploy(blue, green)["Status"] == "SUCCESS"
        stage.aws.client("s3").delete_object(Bucket=BUCKET, Key="rotation.json")  # then times begin with the key set
        stage.clock.now += 3 * 3600
        assert stage.deploy(green, blue)["Status"] == "SUCCESS"
        assert stage.call(stage.event("Delete", ResourceProperties=stage.former))["Status"] == "SUCCESS"
    needed = calls.rights["issuer"]
    described = template.read()
    made = template.chosen(described, template.conditions(described, {"SigningKeys": "blue+green"}))["Resources"]
    allowed = roles.rights(made["IssuerRole"])
    assert calls.strange == set()
    assert calls.operations >= BY_THE_ISSUER
    assert {one.action for one in needed} >= {"kms:GetPublicKey", "s3:DeleteObject", "s3:GetObject", "s3:PutObject"}
    assert missing(needed, allowed) == set()
    assert unused(needed, allowed) == set()
    for right in allowed:  # and none of them goes unnoticed when it is not there
        assert right.action.startswith("logs:") or missing(needed, allowed - {right})
