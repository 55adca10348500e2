"""The documents that are made of a bundle.

A question is answered with whole sentences, so what belongs together stands in one: all mitigations of a technique, all
techniques of a mitigation. It stands right behind the title, where no chunk ends within it.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from .bundle import Bundle, Edge, Item, visible

PREFIX = "attack-mobile/"  # of the documents' ids
DATASET = "attack-mobile"  # in their metadata: by this, too, a document is known to be ours
SENTENCE = 560  # characters; Llamabda cuts sentences that are longer than 600
REFERENCES = 40  # of one document at most

_CITATION = re.compile(r"\s*\(Citation: [^()]*(?:\([^()]*\)[^()]*)*\)")
_LINK = re.compile(r"\[([^\[\]]*)\]\(\s*([^()\s]*)\s*\)")
_OWN_PAGE = re.compile(r"https?://attack\.mitre\.org/[a-z]+/([A-Z]{1,2}\d{4})(?:/(\d{3}))?/?")
_TAG = re.compile(r"</?(?:code|b|i|em|strong|p|br|ul|li)\s*/?>", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Document:
    id: str
    text: str
    metadata: Mapping[str, object]


def of(bundle: Bundle, kinds: Sequence[str]) -> list[Document]:
    """The documents of these kinds, each kind in order of id."""
    writer = _Writer(bundle)
    return [document for kind in KINDS if kind in kinds for document in KINDS[kind](writer)]


class _Writer:
    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.items: Mapping[str, Item] = {**bundle.techniques, **bundle.mitigations}

    def techniques(self) -> Iterable[Document]:
        for one in self.bundle.techniques.values():
            mitigations = self._sources("mitigates", one.id)
            children = self._sources("subtechnique-of", one.id)
            parents = self._targets("subtechnique-of", one.id)
            named = self._named(one.id)
            if len(mitigations) == 1:
                complete = [f"The only mitigation of {named} is {self._named(mitigations[0])}."]
            elif mitigations:
                complete = _sentences(
                    f"The mitigations of {named} are", f"Further mitigations of {named} are", self._each(mitigations)
                )
            else:
                complete = [f"There are no mitigations of {named}."]
            kind = f"a sub-technique of {_listed(self._each(parents))}" if parents else "a technique of ATT&CK Mobile"
            facts = []
            if one.tactics:
                noun = "tactic" if len(one.tactics) == 1 else "tactics"
                facts.append(f"The technique serves the {noun} {_listed(one.tactics)}.")
            if one.platforms:
                facts.append(f"It concerns the platforms {_listed(one.platforms)}.")
            if children:
                facts += _sentences("Its sub-techniques are", "They are also", self._each(children))
            text = [*complete, self._defined(one, kind), " ".join(facts)]
            metadata = {
                "type": "technique",
                "tactics": list(one.tactics),
                "platforms": list(one.platforms),
                "is_subtechnique": bool(parents),
                "parent_ids": parents,
                "subtechnique_ids": children,
                "mitigation_ids": mitigations,
            }
            yield self._document(one, text, metadata)

    def mitigations(self) -> Iterable[Document]:
        for one in self.bundle.mitigations.values():
            techniques = self._targets("mitigates", one.id)
            named = self._named(one.id)
            count = f"{len(techniques)} technique{'s' if len(techniques) > 1 else ''}"
            if techniques:
                complete = _sentences(f"{named} mitigates {count}:", f"{named} also mitigates", techniques)
            else:
                complete = [f"{named} mitigates no technique of ATT&CK Mobile."]
            listed = "\n".join(f"- {technique}" for technique in self._each(techniques))
            text = [*complete, self._defined(one, "a mitigation of ATT&CK Mobile")]
            if listed:
                text.append(f"## The techniques that {named} mitigates\n\n{listed}")
            yield self._document(one, text, {"type": "mitigation", "technique_ids": techniques})

    def relations(self) -> Iterable[Document]:
        verbs = {"mitigates": "mitigates", "subtechnique-of": "is a sub-technique of"}
        for edge in self.bundle.edges:
            says = f"{self._named(edge.source)} {verbs[edge.kind]} {self._named(edge.target)}"
            told = readable(edge.description)
            if edge.kind == "mitigates":
                ends = {"mitigation_id": edge.source, "technique_id": edge.target}
                identifier = f"{edge.target}-{edge.source}"
            else:
                ends = {"technique_id": edge.source, "parent_id": edge.target}
                identifier = f"{edge.source}-{edge.target}"
            metadata = {"type": "relation", "relation": edge.kind, **ends, **self._origin(edge)}
            text = f"# {edge.source} {verbs[edge.kind]} {edge.target}\n\n{says}{': ' + told if told else '.'}\n"
            yield Document(PREFIX + identifier, text, {"name": says, **metadata})

    def _document(self, one: Item, paragraphs: Iterable[str], metadata: Mapping[str, object]) -> Document:
        text = "\n\n".join(part for part in (f"# {one.id} {one.name}", *paragraphs) if part)
        described = {"id": one.id, "name": one.name, **metadata, "url": one.url, "version": one.version}
        kept = {key: value for key, value in described.items() if value not in ("", [])}
        return Document(PREFIX + one.id, text + "\n", {**kept, **self._origin(one)})

    def _origin(self, one: Item | Edge) -> dict[str, object]:
        """What every document says of where it comes from."""
        said = {
            "references": list((one.references or {}).values())[:REFERENCES],
            "dataset": DATASET,
            "attack_version": self.bundle.version,
            "copyright": self.bundle.copyright,
        }
        return {key: value for key, value in said.items() if value}

    def _defined(self, one: Item, kind: str) -> str:
        described = readable(one.description)
        return f"{self._named(one.id)} is {kind}{': ' + described if described else '.'}"

    def _named(self, identifier: str) -> str:
        return f"{identifier} ({self.items[identifier].name})"

    def _each(self, identifiers: Iterable[str]) -> list[str]:
        return [self._named(identifier) for identifier in identifiers]

    def _sources(self, kind: str, target: str) -> list[str]:
        return sorted(edge.source for edge in self.bundle.edges if edge.kind == kind and edge.target == target)

    def _targets(self, kind: str, source: str) -> list[str]:
        return sorted(edge.target for edge in self.bundle.edges if edge.kind == kind and edge.source == source)


KINDS: Mapping[str, Callable[[_Writer], Iterable[Document]]] = {
    "techniques": _Writer.techniques,
    "mitigations": _Writer.mitigations,
    "relations": _Writer.relations,
}


def readable(description: str) -> str:
    """A description without citation marks and markup, its links as words: "Keylogging (T1417.001)"."""
    text = _TAG.sub("", html.unescape(visible(description).replace("\r\n", "\n")))
    text = _LINK.sub(_linked, _CITATION.sub("", text))
    return re.sub(r"\n\s*\n\s*", "\n\n", text).strip()


def _linked(match: re.Match[str]) -> str:
    words, address = match.groups()
    page = _OWN_PAGE.fullmatch(address)
    target = ".".join(part for part in page.groups() if part) if page else address
    return f"{words} ({target})" if target and target != words else words


def _sentences(first: str, further: str, things: Sequence[str]) -> list[str]:
    """One sentence that lists all things; as many as it takes when it would grow too long."""
    groups: list[list[str]] = [[]]
    for thing in things:
        if groups[-1] and len(f"{further} {_listed([*groups[-1], thing])}") > SENTENCE:
            groups.append([])
        groups[-1].append(thing)
    return [f"{further if at else first} {_listed(group)}." for at, group in enumerate(groups)]


def _listed(things: Sequence[str]) -> str:
    return things[0] if len(things) == 1 else f"{', '.join(things[:-1])} and {things[-1]}"
