"""What the roles of a template allow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple


class Right(NamedTuple):
    """`resource` by logical names: `UsersTable`, `CatalogTable/index/due`, `TextBucket/*`."""

    action: str
    resource: str


def statements(role: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for policy in role["Properties"].get("Policies", ()):
        yield from policy["PolicyDocument"]["Statement"]


def rights(role: Mapping[str, Any]) -> set[Right]:
    """Each action on each resource that a role may do. `role`: without conditions."""
    return {
        Right(action, place(resource))
        for statement in statements(role)
        for action in listed(statement["Action"])
        for resource in listed(statement["Resource"])
    }


def too_wide(statement: Mapping[str, Any]) -> list[str]:
    """What of a statement that allows something names everything where it could name one thing."""
    if statement["Effect"] == "Deny":
        return []
    found = [key for key in ("NotAction", "NotResource", "NotPrincipal") if key in statement]
    found += [action for action in listed(statement.get("Action", ())) if "*" in action]
    found += [
        str(one) for one in listed(statement.get("Resource", ())) if not place(one).removeprefix("arn:").strip("*:/")
    ]
    principal = statement.get("Principal", {})
    if principal == "*" or (isinstance(principal, dict) and "*" in listed(principal.get("AWS", ()))):
        found.append(f"Principal {principal}")
    return found


def place(resource: Any) -> str:
    """`!GetAtt X.Arn` as `X`, `!Sub ${X.Arn}/y` as `X/y`; what stands for a parameter as its name."""
    if isinstance(resource, str):
        return resource
    ((function, given),) = resource.items()
    if function == "Ref":
        return str(given)
    if function == "Fn::GetAtt":
        return str(given[0])
    text = given if isinstance(given, str) else given[0]
    return text.replace(".Arn}", "}").replace("${", "").replace("}", "")


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else list(value) if isinstance(value, tuple) else [value]
