"""What there is one of: the installation's name, where its indexes are, and the builds of its vectors."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, TypeAlias

from llamabda.adapters.dynamodb import layout
from llamabda.adapters.dynamodb.items import moment, when
from llamabda.adapters.dynamodb.records import Item, number, text
from llamabda.types import Build, Embedding, EmbeddingModel

BuildState: TypeAlias = Literal["building", "live", "retired", "dropping"]


@dataclass(frozen=True, slots=True)
class Making:
    """A build and how it stands. `since`: of its state; of one that is being made, when somebody last worked on it.

    `epoch` is raised to forget which documents have vectors in it: they carry marks, which hold its name and the epoch.
    """

    name: str
    embedding: Embedding
    state: BuildState
    since: datetime
    epoch: int = 0

    @property
    def mark(self) -> str:
        return f"{self.name}@{self.epoch}"

    @property
    def build(self) -> Build:
        return Build(self.name, self.embedding)


@dataclass(frozen=True, slots=True)
class Head:
    """`version` is raised by every write of it; `turn` by those that change which build is live, or which marks count.

    The counts of live documents and their vectors carry the turn, too, and are only changed by who knows it: so whoever
    writes a document knows what readers search, and need not write the head.
    """

    owner: str
    place: str = "home"  # before there was a choice, indexes were in the home
    builds: tuple[Making, ...] = ()
    turn: int = 0
    version: int = 0  # 0: it is not there yet

    @property
    def live(self) -> Making | None:
        return next((making for making in self.builds if making.state == "live"), None)

    @property
    def marks(self) -> frozenset[str]:
        """Those that count. What is being dropped has none any more."""
        return frozenset(making.mark for making in self.builds if making.state != "dropping")

    def making(self, build: str) -> Making | None:
        """None, too, for one that is being dropped."""
        return next((one for one in self.builds if one.name == build and one.state != "dropping"), None)

    def mark(self, build: str) -> frozenset[str]:
        """Of what has vectors in this build: one mark, or none when there is no such build."""
        making = self.making(build)
        return frozenset() if making is None else frozenset((making.mark,))

    def changed(self, build: str, change: Callable[[Making], Making]) -> Head:
        return replace(self, builds=tuple(change(one) if one.name == build else one for one in self.builds))

    def named(self, build: str, model: EmbeddingModel) -> Head:
        """The same model may have come under another name."""
        return self.changed(build, lambda one: replace(one, embedding=Embedding(one.embedding.fingerprint, model)))

    def prepared(self, embedding: Embedding, now: datetime, *, retired: bool = True) -> tuple[Head, str]:
        """The newest build of this embedding, if there is one, else a new one. It is being made from now on.

        `retired`: whether it may be one that was live.
        """
        states = ("building", "retired") if retired else ("building",)
        known = [
            one for one in self.builds if one.embedding.fingerprint == embedding.fingerprint and one.state in states
        ]
        if known:
            name = max(known, key=lambda one: one.since).name
            begun = self.changed(name, lambda one: replace(one, state="building", since=now))
            return begun.named(name, embedding.model), name
        name = f"{embedding.fingerprint}.{secrets.token_hex(4)}"
        return replace(self, builds=(*self.builds, Making(name, embedding, "building", now))), name

    def adopted(self, build: str, now: datetime) -> Head:
        """Readers search this one."""

        def change(one: Making) -> Making:
            if one.name == build:
                return replace(one, state="live", since=now)
            return replace(one, state="retired", since=now) if one.state == "live" else one

        return replace(self, builds=tuple(map(change, self.builds)))

    def emptied(self, builds: Collection[str]) -> Head:
        """No document has vectors in these any more."""
        return replace(
            self,
            builds=tuple(replace(one, epoch=one.epoch + 1) if one.name in builds else one for one in self.builds),
        )

    @property
    def item(self) -> Item:
        return {
            **layout.HEAD.item,
            "owner": text(self.owner),
            "place": text(self.place),
            "builds": text(json.dumps([_described(one) for one in self.builds])),
            "turn": number(self.turn),
            "version": number(self.version),
        }


def head(item: Item | None) -> Head:
    """What the table has; where it has nothing yet, that of a new installation."""
    if item is None:
        return Head(secrets.token_hex(8))
    return Head(
        owner=item["owner"]["S"],
        place=item["place"]["S"],
        builds=tuple(
            Making(
                one["name"],
                Embedding(one["fingerprint"], EmbeddingModel(one["model"], one["backend"])),
                one["state"],
                when({"N": one["since"]}),
                one["epoch"],
            )
            for one in json.loads(item["builds"]["S"])
        ),
        turn=int(item["turn"]["N"]),
        version=int(item["version"]["N"]),
    )


def _described(one: Making) -> dict[str, object]:
    embedding = one.embedding
    return {
        "name": one.name,
        "fingerprint": embedding.fingerprint,
        "model": embedding.model.name,
        "backend": embedding.model.backend,
        "state": one.state,
        "since": moment(one.since)["N"],
        "epoch": one.epoch,
    }
