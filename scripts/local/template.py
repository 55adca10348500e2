"""Reads template.yaml, so that what is made on one machine is what will be deployed."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "template.yaml"
_NO_VALUE = {"Ref": "AWS::NoValue"}
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
    """The whole template, as a copy of one's own."""
    return copy.deepcopy(_parsed(path, path.stat().st_mtime_ns))


@cache
def _parsed(path: Path, _changed: int) -> dict[str, Any]:
    """Once, since every test of AWS asks for its tables."""
    with path.open(encoding="utf-8") as file:
        found = yaml.load(file, _Loader)  # noqa: S506  (a safe loader with functions as plain values)
    assert isinstance(found, dict)
    return found


def local_parameters() -> dict[str, str]:
    """What samconfig.toml gives the stack on one machine, beside the defaults."""
    with (ROOT / "samconfig.toml").open("rb") as file:
        given = tomllib.load(file)["local"]["local_start_api"]["parameters"]["parameter_overrides"]
    return dict(pair.split("=", 1) for pair in given.split())


def conditions(template: Mapping[str, Any], parameters: Mapping[str, str]) -> dict[str, bool]:
    """Which hold. `parameters`: those that differ from their defaults."""
    values = {name: str(one.get("Default", "")) for name, one in template["Parameters"].items()} | dict(parameters)
    if unknown := parameters.keys() - template["Parameters"].keys():
        raise ValueError(f"the template has no parameter {', '.join(sorted(unknown))}")
    return {name: holds(one, values, template["Conditions"]) for name, one in template["Conditions"].items()}


def holds(expression: Mapping[str, Any], values: Mapping[str, str], named: Mapping[str, Any]) -> bool:
    """Whether a condition does. `values`: of the parameters; `named`: conditions that it may name."""
    ((function, given),) = expression.items()
    if function == "Condition":
        return holds(named[given], values, named)
    if function == "Fn::Equals":
        first, second = (values[one["Ref"]] if isinstance(one, dict) else str(one) for one in given)
        return first == second
    found = [holds(one, values, named) for one in given]
    return {"Fn::Not": lambda: not found[0], "Fn::And": lambda: all(found), "Fn::Or": lambda: any(found)}[function]()


def chosen(template: Mapping[str, Any], held: Mapping[str, bool]) -> dict[str, Any]:
    """The template as these conditions leave it: no more conditions, no resources that are not made."""
    kept = {name: part for name, part in template.items() if name not in ("Conditions", "Rules")}
    for section in ("Resources", "Outputs"):
        made = {name: one for name, one in kept[section].items() if held.get(one.get("Condition"), True)}
        kept[section] = {name: {key: one[key] for key in one if key != "Condition"} for name, one in made.items()}
    found = _decided(kept, held)
    assert isinstance(found, dict)
    return found


def _decided(value: Any, held: Mapping[str, bool]) -> Any:
    """With every If replaced by what it comes to."""
    if isinstance(value, dict):
        if value.keys() == {"Fn::If"}:
            condition, then, otherwise = value["Fn::If"]
            return _decided(then if held[condition] else otherwise, held)
        parts = {key: _decided(part, held) for key, part in value.items()}
        return {key: part for key, part in parts.items() if part != _NO_VALUE}
    if isinstance(value, list):
        return [part for part in (_decided(one, held) for one in value) if part != _NO_VALUE]
    return value


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
