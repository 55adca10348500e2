"""What the OpenAPI document allows, and what it does not: no request ends in a defect. Seeded and bounded."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from llamabda_functions.local.app import create_local_app
from schemathesis.checks import CHECKS

from llamabda import wiring
from tests.http.conftest import home_at, register

EXAMPLES = 30  # per operation
KEPT = ["not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance"]
app = create_local_app()
schema = schemathesis.openapi.from_dict(app.openapi())
schema.app = app


@pytest.fixture(scope="module")
def headers(tmp_path_factory, signing_key):
    from fastapi.testclient import TestClient

    with home_at(tmp_path_factory.mktemp("home"), signing_key) as _, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RATE_LIMIT_ADDRESS", "0")
        patch.setenv("RATE_LIMIT_USER", "0")
        wiring.settings.cache_clear()
        yield register(TestClient(app), "alice").headers


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_no_request_ends_in_a_defect(case, headers):
    reply = case.call(headers=headers)
    case.validate_response(reply, checks=CHECKS.get_by_names(KEPT))
