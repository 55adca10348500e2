"""Reads template.yaml, so that what is made on one machine is what will be deployed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

TEMPLATE = Path(__file__).resolve().parents[2] / "template.yaml"
_NEW_TABLE = ("AttributeDefinitions", "BillingMode", "GlobalSecondaryIndexes", "KeySchema")


class _Loader(yaml.SafeLoader):
    """Takes CloudFormation's short forms, `!Ref X` as {"Ref": "X"} and `!Sub x` as {"Fn::Sub": "x"}."""


def _function(loader: _Loader, name: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.MappingNode):
        value: Any = loader.construct_mapping(node, deep=True)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        assert isinstance(node, yaml.ScalarNode)
        value = loader.construct_scalar(node)
    if name == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {name if name in ("Ref", "Condition") else f"Fn::{name}": value}


_Loader.add_multi_constructor("!", _function)


def read(path: Path = TEMPLATE) -> dict[str, Any]:
    """The whole template."""
    with path.open(encoding="utf-8") as file:
        found = yaml.load(file, _Loader)  # noqa: S506  (a safe loader with functions as plain values)
    assert isinstance(found, dict)
    return found


def table(template: dict[str, Any], name: str) -> dict[str, Any]:
    """What `create_table` takes for the table of that logical name, but its own name."""
    properties = template["Resources"][name]["Properties"]
    return {key: properties[key] for key in _NEW_TABLE if key in properties}


def resolved(value: Any, name: Callable[[str], str]) -> Any:
    """The same with every Ref replaced by the `name` of what it refers to."""
    if isinstance(value, dict):
        if value.keys() == {"Ref"}:
            return name(value["Ref"])
        return {key: resolved(part, name) for key, part in value.items()}
    return [resolved(part, name) for part in value] if isinstance(value, list) else value
