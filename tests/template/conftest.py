"""template.yaml as AWS transforms it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from scripts.template import graph

TRANSFORMED = "LLAMABDA_TEST_TRANSFORMED"  # a file with the transformed template


@pytest.fixture(scope="session")
def transformed() -> dict[str, Any]:
    """Made by the SAM CLI's own translator, which has an environment of its own."""
    if not os.environ.get(TRANSFORMED):
        pytest.skip(f"{TRANSFORMED} names no transformed template: `make template` makes one and runs this")
    found = json.loads(Path(os.environ[TRANSFORMED]).read_text("utf-8"))
    assert isinstance(found, dict)
    return found


@dataclass(frozen=True)
class Combination:
    """`cycle`, `unknown`: what is wrong; `resources`: what is made; `api`: what that waits for; `cors`: of the API."""

    parameters: dict[str, str]
    cycle: list[str]
    unknown: set[str]
    resources: set[str]
    api: set[str]
    cors: dict[str, Any] | None


@pytest.fixture(scope="session")
def combinations(transformed: dict[str, Any]) -> Sequence[Combination]:
    """The template in each combination of its conditions."""
    found = []
    for parameters, made in graph.every(transformed):
        api = made["Resources"]["Api"]
        cors = api["Properties"]["Body"].get("x-amazon-apigateway-cors")
        names = set(made["Resources"])
        found.append(Combination(parameters, graph.cycle(made), graph.unknown(made), names, graph.needs(api), cors))
    return found
