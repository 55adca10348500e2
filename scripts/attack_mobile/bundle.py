"""Techniques, mitigations and the edges between them, out of a STIX bundle, without what is revoked or deprecated."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

DOMAIN = "mobile-attack"
SOURCE = "mitre-attack"  # of the external reference that carries the ATT&CK id
KILL_CHAIN = "mitre-mobile-attack"
_IDS = {"attack-pattern": re.compile(r"T\d{4}(?:\.\d{3})?"), "course-of-action": re.compile(r"M\d{4}")}
_SHOWN = 80  # characters of a wrong value in a message

EdgeKind = Literal["mitigates", "subtechnique-of"]


class BundleError(Exception):
    """The whole bundle cannot be used."""


class _Wrong(Exception):
    """One object cannot be used."""


@dataclass(frozen=True, slots=True)
class Item:
    """A technique (sub-techniques are techniques, too) or a mitigation."""

    id: str  # of ATT&CK: T1406, T1406.001, M1006
    name: str
    description: str  # as it stands in the bundle
    url: str  # "" when the bundle has none that may be shown
    version: str
    tactics: tuple[str, ...] = ()  # names; techniques only, as are the platforms
    platforms: tuple[str, ...] = ()
    references: Mapping[str, str] | None = None  # what the description cites: URLs by name


@dataclass(frozen=True, slots=True)
class Edge:
    """`source` mitigates, or is a sub-technique of, `target`: ATT&CK ids. `description`: what the edge itself says."""

    kind: EdgeKind
    source: str
    target: str
    description: str
    references: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Bundle:
    """Items by id and edges, both in order of id. `problems`: what was skipped and why, one sentence each."""

    techniques: Mapping[str, Item]
    mitigations: Mapping[str, Item]
    edges: tuple[Edge, ...]
    version: str  # of ATT&CK; "" when the bundle does not say it
    copyright: str
    problems: tuple[str, ...]


def read(data: bytes, *, name: str) -> Bundle:
    """BundleError, naming what and where, when this is no STIX bundle of ATT&CK Mobile."""
    try:
        whole = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as exc:
        raise BundleError(f"{name} is not JSON: it is not text in UTF-8 (byte {exc.start})") from exc
    except json.JSONDecodeError as exc:
        raise BundleError(f"{name} is not JSON: {exc.msg} in line {exc.lineno}, column {exc.colno}") from exc
    except ValueError as exc:  # a number of thousands of digits
        raise BundleError(f"{name} cannot be read as JSON: {exc}") from exc
    except RecursionError as exc:
        raise BundleError(f"{name} is nested too deeply to be a STIX bundle") from exc
    if not isinstance(whole, dict):
        raise BundleError(f"{name} is not a STIX bundle: it holds {_kind(whole)} where an object is expected")
    if not isinstance(whole.get("objects"), list):
        raise BundleError(f'{name} is not a STIX bundle: "objects" is {_kind(whole.get("objects"))}, not a list')
    found = _Reader().bundle(whole["objects"])
    if not found.techniques:
        reasons = "".join(f"\n  {problem}" for problem in found.problems[:5])
        raise BundleError(f"{name} holds no live technique of ATT&CK Mobile{reasons}")
    return found


class _Reader:
    def __init__(self) -> None:
        self.problems: list[str] = []

    def bundle(self, objects: list[object]) -> Bundle:
        alive = [(place, one) for place, one in self._newest(objects) if self._alive(place, one)]
        tactics = {
            str(one["x_mitre_shortname"]): _line(one["name"])
            for _, one in alive
            if one["type"] == "x-mitre-tactic"
            and isinstance(one.get("x_mitre_shortname"), str)
            and isinstance(one.get("name"), str)
        }
        items = self._items(alive, tactics)
        techniques = {item.id: item for item in items.values() if item.id[0] == "T"}
        mitigations = {item.id: item for item in items.values() if item.id[0] == "M"}
        return Bundle(
            dict(sorted(techniques.items())),
            dict(sorted(mitigations.items())),
            tuple(self._edges(alive, items)),
            next((_line(one.get("x_mitre_version")) for _, one in alive if one["type"] == "x-mitre-collection"), ""),
            next((text for _, one in alive if (text := _statement(one))), ""),
            tuple(self.problems),
        )

    def _newest(self, objects: list[object]) -> list[tuple[str, dict[str, object]]]:
        """Each object with its place; of several versions of one, the last modified."""
        found: dict[str, tuple[str, dict[str, object]]] = {}
        for at, one in enumerate(objects):
            place = f"objects[{at}]"
            if not isinstance(one, dict):
                self._skip(place, f"is {_kind(one)} where an object is expected")
                continue
            kind, stix_id = one.get("type"), one.get("id")
            if not isinstance(kind, str) or not isinstance(stix_id, str):
                wrong = "type" if not isinstance(kind, str) else "id"
                self._skip(place, f'"{wrong}" is {_kind(one.get(wrong))}, not a text')
                continue
            place = f"{place} ({_shown(stix_id)})"
            if stix_id not in found or str(found[stix_id][1].get("modified")) <= str(one.get("modified")):
                found[stix_id] = place, one
        return list(found.values())

    def _alive(self, place: str, one: dict[str, object]) -> bool:
        for flag in ("revoked", "x_mitre_deprecated"):
            value = one.get(flag, False)
            if not isinstance(value, bool):
                self._skip(place, f'"{flag}" is {_kind(value)}, not true or false')
                return False
            if value:
                return False
        return True

    def _items(self, alive: list[tuple[str, dict[str, object]]], tactics: Mapping[str, str]) -> dict[str, Item]:
        """By STIX id."""
        items: dict[str, Item] = {}
        places: dict[str, str] = {}
        for place, one in alive:
            domains = one.get("x_mitre_domains", [DOMAIN])
            if one["type"] not in _IDS or (isinstance(domains, list) and DOMAIN not in domains):
                continue
            try:
                item = _item(one, tactics)
            except _Wrong as exc:
                self._skip(place, str(exc))
                continue
            if item.id in places:
                self._skip(place, f"has the ATT&CK id {item.id}, which {places[item.id]} has already")
                continue
            places[item.id] = place
            items[str(one["id"])] = item
        return items

    def _edges(self, alive: list[tuple[str, dict[str, object]]], items: Mapping[str, Item]) -> list[Edge]:
        found: dict[tuple[str, str, str], Edge] = {}
        for place, one in alive:
            kind = one.get("relationship_type")
            if one["type"] != "relationship" or kind not in ("mitigates", "subtechnique-of"):
                continue
            ends = one.get("source_ref"), one.get("target_ref")
            if not all(isinstance(end, str) for end in ends):
                self._skip(place, f'a "{kind}" whose "source_ref" or "target_ref" is not a text')
                continue
            source, target = (items.get(str(end)) for end in ends)
            if source is None or target is None:
                continue  # an end that is revoked, deprecated or was skipped
            if (source.id[0], target.id[0]) != ("M" if kind == "mitigates" else "T", "T"):
                self._skip(place, f'a "{kind}" from {source.id} to {target.id} makes no sense')
                continue
            try:
                description, references = _text(one, "description"), _references(one)
            except _Wrong as exc:
                self._skip(place, f"its text is left out: {exc}")
                description, references = "", {}
            key = kind, source.id, target.id
            if key in found:
                before = found[key]
                texts = dict.fromkeys((before.description, description))
                description = "\n\n".join(text for text in texts if text)
                references = {**(before.references or {}), **references}
            found[key] = Edge(
                "mitigates" if kind == "mitigates" else "subtechnique-of", source.id, target.id, description, references
            )
        return sorted(found.values(), key=lambda edge: (edge.kind, edge.target, edge.source))

    def _skip(self, place: str, why: str) -> None:
        self.problems.append(f"{place}: {why}")


def _item(one: Mapping[str, object], tactics: Mapping[str, str]) -> Item:
    identifier, url = _attack_id(one)
    name = _line(_text(one, "name"))
    if not name:
        raise _Wrong(f'{identifier} has no "name"')
    return Item(
        identifier,
        name,
        _text(one, "description"),
        url,
        _line(_text(one, "x_mitre_version")),
        tuple(tactics.get(phase, phase.replace("-", " ").title()) for phase in _phases(one)),
        tuple(_line(platform) for platform in _texts(one, "x_mitre_platforms")),
        _references(one),
    )


def _attack_id(one: Mapping[str, object]) -> tuple[str, str]:
    """The ATT&CK id and the address of its page."""
    pattern = _IDS[str(one["type"])]
    for reference in _objects(one, "external_references"):
        if reference.get("source_name") == SOURCE:
            identifier = reference.get("external_id")
            if not isinstance(identifier, str) or not pattern.fullmatch(identifier):
                raise _Wrong(
                    f'"external_id" is {_shown(identifier)}, not like {"T1406" if "T" in pattern.pattern else "M1006"}'
                )
            return identifier, _address(reference.get("url"))
    raise _Wrong(f'no external reference of "{SOURCE}", so that it has no ATT&CK id')


def _phases(one: Mapping[str, object]) -> Iterator[str]:
    for phase in _objects(one, "kill_chain_phases"):
        if phase.get("kill_chain_name") == KILL_CHAIN and isinstance(phase.get("phase_name"), str):
            yield _line(phase["phase_name"])


def _references(one: Mapping[str, object]) -> dict[str, str]:
    cited = _text(one, "description")
    found = {}
    for reference in _objects(one, "external_references"):
        name, address = reference.get("source_name"), _address(reference.get("url"))
        if isinstance(name, str) and address and f"(Citation: {name})" in cited:
            found[_line(name)] = address
    return found


def _statement(one: Mapping[str, object]) -> str:
    definition = one.get("definition") if one["type"] == "marking-definition" else None
    return _line(definition.get("statement")) if isinstance(definition, dict) else ""


def _text(one: Mapping[str, object], key: str) -> str:
    value = one.get(key, "")
    if not isinstance(value, str):
        raise _Wrong(f'"{key}" is {_kind(value)}, not a text')
    return value


def _texts(one: Mapping[str, object], key: str) -> list[str]:
    value = one.get(key, [])
    if not isinstance(value, list) or not all(isinstance(element, str) for element in value):
        raise _Wrong(f'"{key}" is not a list of texts')
    return value


def _objects(one: Mapping[str, object], key: str) -> list[dict[str, object]]:
    value = one.get(key, [])
    if not isinstance(value, list) or not all(isinstance(element, dict) for element in value):
        raise _Wrong(f'"{key}" is not a list of objects')
    return value


def _address(value: object) -> str:
    """A web address as it is; "" for anything else, which must not become a link for a reader."""
    if not isinstance(value, str) or not re.fullmatch(r"[!-~]{1,2000}", value):
        return ""
    try:
        parts = urlsplit(value)
    except ValueError:
        return ""
    return value if parts.scheme in ("http", "https") and parts.hostname else ""


def _line(value: object) -> str:
    """A text in one line, without what cannot be seen."""
    return " ".join(visible(value).split()) if isinstance(value, str) else ""


def visible(text: str) -> str:
    """A text without control characters (but line ends) and halves of characters."""
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs"))


def _kind(value: object) -> str:
    names = {type(None): "missing", bool: "true or false", str: "a text", list: "a list", dict: "an object"}
    return names.get(type(value), "a number")


def _shown(value: object) -> str:
    if not isinstance(value, str):
        return _kind(value)
    cut = _line(value)
    return cut if len(cut) <= _SHOWN else cut[:_SHOWN] + "..."
