"""The indexes of one installation in an OpenSearch cluster."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any

from llamabda.adapters.opensearch.connection import Connection, Failed
from llamabda.adapters.opensearch.index import OpenSearchIndex
from llamabda.adapters.opensearch.mapping import Layout
from llamabda.adapters.opensearch.serverless import ServerlessIndex
from llamabda.types import GenerationKey


class OpenSearchIndexes:
    """The Indexes port: each build has the index `<alias>-<build>`, and the one that readers search the alias, too.

    Of indexes whose names begin alike, those that another `owner` made are not touched.
    """

    def __init__(
        self, connection: Connection, *, alias: str, layout: Layout, owner: str, serverless: bool = False
    ) -> None:
        self._connection = connection
        self._alias = alias
        self._layout = layout
        self._owner = owner
        self._kind = ServerlessIndex if serverless else OpenSearchIndex
        self._known: dict[str, OpenSearchIndex] = {}
        self._lock = threading.Lock()

    @property
    def place(self) -> str:
        return f"{self._connection.host}/{self._alias}"

    def make(self, build: str, dim: int) -> None:
        self.open(build, dim).make()

    def open(self, build: str, dim: int) -> OpenSearchIndex:
        """Nothing is asked of the cluster yet: it may be away for a while."""
        with self._lock:
            index = self._known.get(build)
            if index is None or index.dim != dim:
                index = self._known[build] = self._kind(
                    self._connection, self._name(build), dim=dim, layout=self._layout, owner=self._owner, build=build
                )
            return index

    def there(self, build: str) -> bool:
        return build in self._found()

    def names(self) -> frozenset[str]:
        return frozenset(self._found())

    def delete(self, keys: Iterable[GenerationKey]) -> None:
        every = list(keys)
        for build, dim in self._found().items() if every else ():
            self.open(build, dim).delete(every)

    def drop(self, build: str) -> None:
        with self._lock:
            self._known.pop(build, None)
        if build not in self._found():
            return  # or somebody else's
        try:
            self._call("DELETE", f"/{self._name(build)}")
        except Failed as exc:
            if exc.status != 404:
                raise

    def publish(self, build: str) -> None:
        name = self._name(build)
        holders = self._holders()
        foreign = sorted(holders - {self._name(one) for one in self._found()})
        if foreign:
            raise Failed(
                f"the alias {self._alias} leads to {foreign[0]}, which is another installation's: set INDEX_NAME to a "
                "name of your own",
                passing=False,
            )
        if holders == {name}:
            return
        actions: list[dict[str, Any]] = [{"add": {"index": name, "alias": self._alias}}]
        actions += [{"remove": {"index": other, "alias": self._alias}} for other in sorted(holders - {name})]
        try:
            self._call("POST", "/_aliases", {"actions": actions})
        except Failed as exc:
            if exc.kind != "invalid_alias_name_exception":
                raise
            raise Failed(
                f"INDEX_NAME {self._alias} is the name of an index that is there already: choose another name, or "
                "remove that index",
                passing=False,
            ) from exc

    def _name(self, build: str) -> str:
        return f"{self._alias}-{build}"

    def _holders(self) -> set[str]:
        """The indexes that the alias leads to."""
        try:
            return set(self._call("GET", f"/_alias/{self._alias}"))
        except Failed as exc:
            if exc.status == 404:
                return set()
            raise

    def _found(self) -> dict[str, int]:
        """Our builds that are there, with the length of their vectors."""
        reply = self._call("GET", f"/{self._alias}-*/_mapping", None, {"expand_wildcards": "open"})
        found = {}
        for name, content in reply.items():
            mappings: Mapping[str, Any] = content.get("mappings", {})
            meta = mappings.get("_meta", {})
            build = str(meta.get("build"))
            # the names of other installations' indexes may begin with ours
            if meta.get("owner") == self._owner and name == self._name(build):
                found[build] = int(mappings["properties"]["vector"]["dimension"])
        return found

    def _call(
        self, method: str, path: str, body: dict[str, Any] | None = None, params: dict[str, str] | None = None
    ) -> dict[str, Any]:
        deadline = self._connection.deadline()
        return self._connection.patiently(
            lambda: self._connection.call(method, path, body, params=params, deadline=deadline), deadline
        )
