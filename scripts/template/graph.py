"""What the resources of a template refer to, in every combination of its conditions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from itertools import product
from typing import Any

from scripts.local.template import chosen, conditions, holds

_NAMED = re.compile(r"\$\{([^!}][^}]*)\}")
_OTHER = "another-value"


def references(value: Any) -> Iterator[str]:
    """The names that Ref, GetAtt and Sub in it name."""
    if isinstance(value, list):
        for part in value:
            yield from references(part)
    if not isinstance(value, dict):
        return
    for key, part in value.items():
        if key == "Ref":
            yield part
        elif key == "Fn::GetAtt":
            yield (part if isinstance(part, str) else part[0]).split(".")[0]
        elif key == "Fn::Sub":
            text, own = part if isinstance(part, list) else (part, {})
            yield from (name.strip().split(".")[0] for name in _NAMED.findall(text) if name not in own)
            yield from references(list(own.values()))
        else:
            yield from references(part)


def needs(resource: Mapping[str, Any]) -> set[str]:
    """What must be there before a resource is made, parameters included."""
    waits = resource.get("DependsOn", [])
    return {*references(resource.get("Properties", {})), *([waits] if isinstance(waits, str) else waits)}


def cycle(template: Mapping[str, Any]) -> list[str]:
    """Resources that wait for each other; none when all can be made. `template`: without conditions."""
    made = template["Resources"]
    try:
        TopologicalSorter({name: needs(one) & made.keys() for name, one in made.items()}).prepare()
    except CycleError as exc:
        return list(exc.args[1])
    return []


def unknown(template: Mapping[str, Any]) -> set[str]:
    """What is referred to and not there. `template`: without conditions."""
    made, given = template["Resources"], template.get("Parameters", {})
    named = {name for one in made.values() for name in needs(one)} | set(references(template.get("Outputs", {})))
    return {name for name in named if name not in made and name not in given and not name.startswith("AWS::")}


def refused(template: Mapping[str, Any], parameters: Mapping[str, str]) -> list[str]:
    """What CloudFormation says of these parameters before it makes anything: descriptions of rules that do not hold."""
    values = {name: str(one.get("Default", "")) for name, one in template["Parameters"].items()} | dict(parameters)
    found = []
    for rule in template.get("Rules", {}).values():
        if "RuleCondition" not in rule or holds(rule["RuleCondition"], values, {}):
            found += [one["AssertDescription"] for one in rule["Assertions"] if not holds(one["Assert"], values, {})]
    return found


def combinations(template: Mapping[str, Any]) -> Iterator[tuple[dict[str, str], dict[str, bool]]]:
    """Each set of conditions that can hold at once, with parameters for which it does."""
    compared = _compared({**template["Conditions"], **template.get("Rules", {})})
    values = {}
    for name, literals in compared.items():
        described = template["Parameters"][name]
        allowed = [str(one) for one in described.get("AllowedValues", ())]
        values[name] = allowed or list(dict.fromkeys((str(described.get("Default", "")), *literals, _OTHER)))
    seen = set()
    for picked in product(*values.values()):
        parameters = dict(zip(values, picked, strict=True))
        held = conditions(template, parameters)
        if tuple(held.values()) not in seen and not refused(template, parameters):
            seen.add(tuple(held.values()))
            yield parameters, held


def every(template: Mapping[str, Any]) -> Iterator[tuple[dict[str, str], dict[str, Any]]]:
    """The template as each combination leaves it, with parameters that lead to it."""
    for parameters, held in combinations(template):
        yield parameters, chosen(template, held)


def _compared(value: Any) -> dict[str, list[str]]:
    """Parameters that are compared, with the texts that they are compared with."""
    found: dict[str, list[str]] = {}
    if isinstance(value, dict) and value.keys() == {"Fn::Equals"}:
        names = [one["Ref"] for one in value["Fn::Equals"] if isinstance(one, dict)]
        texts = [str(one) for one in value["Fn::Equals"] if not isinstance(one, dict)]
        return dict.fromkeys(names, texts)
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        for name, texts in _compared(part).items():
            found.setdefault(name, []).extend(texts)
    return found
