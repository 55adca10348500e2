"""Refresh tokens in DynamoDB."""

from __future__ import annotations

import hashlib
from typing import Any

from llamabda.adapters.dynamodb.calls import Key
from llamabda.adapters.dynamodb.table import ConditionFailed, Delete, Put, Table, Update, forget_at
from llamabda.types import Session

# pk                       sk        attributes
# session#<id>             session   username, digest, expires_at (epoch seconds), credentials, expires,
#                                    ended: its user's number when it began
# sessions-of#<sha-256>    ended     count: how often all sessions of that user were ended
#
# A session is good while its number is its user's: so all of a user's sessions, however many, end by one write. The
# number stays for good; the digest of the name keeps its key short.


class DynamoSessionStore:
    """The SessionStore port over one table."""

    def __init__(self, client: Any, table: str, *, setting: str = "USERS_TABLE") -> None:
        self._table = Table(client, table, dependency="sessions", setting=setting)

    def add(self, session: Session, *, now: float) -> None:
        item = {
            "username": session.username,
            "digest": session.digest,
            "expires_at": session.expires_at,
            "credentials": session.credentials,
            "expires": forget_at(session.expires_at),
            "ended": self._ended(session.username),
        }
        self._table.write(Put(_key(session.id), item))

    def get(self, session_id: str) -> Session | None:
        found = self._table.get(_key(session_id))
        if found is None or found["ended"] != self._ended(found["username"]):
            return None
        expires_at, credentials = float(found["expires_at"]), found["credentials"]
        return Session(session_id, found["username"], found["digest"], expires_at, credentials)

    def rotate(self, session_id: str, old: str, new: str, *, expires_at: float, now: float) -> Session | None:
        change = "SET #digest = :new, #expires_at = :end, #expires = :expires"
        values = {"old": old, "new": new, "now": now, "end": expires_at, "expires": forget_at(expires_at)}
        condition = "#digest = :old AND #expires_at > :now"
        try:
            found = self._table.write(Update(_key(session_id), change, condition, values))
        except ConditionFailed as exc:
            found = exc.item
            if found is None:
                return None
            # `new` is nobody else's: the client tried again after a try that had arrived
            if found["digest"] != new:
                self._delete(session_id)
                return None
        assert found is not None
        # after the write: whoever ends all sessions from now on ends this one as it is now
        if found["ended"] != self._ended(found["username"]):
            self._delete(session_id)
            return None
        return Session(session_id, found["username"], new, expires_at, found["credentials"])

    def end(self, session_id: str, digest: str) -> None:
        try:
            self._table.write(Delete(_key(session_id), "#digest = :digest", {"digest": digest}))
        except ConditionFailed:
            return

    def end_all(self, username: str) -> None:
        self._table.write(Update(_ended_key(username), "ADD #count :one", values={"one": 1}))

    def _ended(self, username: str) -> int:
        found = self._table.get(_ended_key(username))
        return 0 if found is None else int(found["count"])

    def _delete(self, session_id: str) -> None:
        self._table.write(Delete(_key(session_id)))


def _key(session_id: str) -> Key:
    return Key(f"session#{session_id}", "session")


def _ended_key(username: str) -> Key:
    return Key(f"sessions-of#{hashlib.sha256(username.encode('utf-8', 'surrogatepass')).hexdigest()}", "ended")
