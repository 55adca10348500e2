"""Writes into an OpenAPI document which problems each operation can answer with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from llamabda.http_problems import MEDIA_TYPE
from llamabda.http_shapes import Problem

_OPEN = (429, 500)
_BODY = (400, 413, 415, 422)
_INPUT = (400, 414, 422)
_TOKEN = (401,)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For a route's `responses`: what it can answer with beyond what its parameters, body and token imply."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }


def with_problems(document: dict[str, Any]) -> dict[str, Any]:
    """The same document, completed; doing it again changes nothing."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own shape, which is never sent
        schemas.pop(name, None)
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(problem.pop("$defs", {}))
    schemas["Problem"] = problem
    for operations in document["paths"].values():
        for operation in operations.values():
            responses = operation["responses"]
            for status, response in problems(*_implied(operation)).items():
                responses[str(status)] = response
            operation["responses"] = dict(sorted(responses.items()))
    return document


def _implied(operation: Mapping[str, Any]) -> Iterable[int]:
    yield from _OPEN
    if "requestBody" in operation:
        yield from _BODY
    if "parameters" in operation:
        yield from _INPUT
    if "security" in operation:
        yield from _TOKEN
