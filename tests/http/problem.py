"""What every problem document must be."""

from __future__ import annotations

import re

MEMBERS = {"type", "title", "status", "detail", "instance", "code", "errors"}


def checked(reply, status: int) -> dict:
    """The problem document of a reply, after checking what holds for all of them."""
    assert reply.status_code == status, f"{reply.status_code}: {reply.text[:500]}"
    assert reply.headers["content-type"] == "application/problem+json"
    document = reply.json()
    assert set(document) == MEMBERS
    assert document["status"] == status
    assert document["instance"] == f"urn:uuid:{reply.headers['x-request-id']}"
    assert document["detail"]
    assert re.fullmatch("[a-z_]+", document["code"])
    for entry in document["errors"]:
        assert set(entry) <= {"loc", "msg", "value"}
        assert len(str(entry.get("value", ""))) <= 100
    assert "Traceback" not in reply.text
    if status == 401:
        assert reply.headers["www-authenticate"].startswith("Bearer")
    return document
