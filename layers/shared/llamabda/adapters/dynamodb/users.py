"""Accounts and invites in DynamoDB."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from llamabda.adapters.dynamodb.attributes import Item
from llamabda.adapters.dynamodb.calls import Key
from llamabda.adapters.dynamodb.table import (
    MAX_SORT_KEY_BYTES,
    TRIES,
    Check,
    ConditionFailed,
    Delete,
    Put,
    Table,
    Update,
    forget_at,
)
from llamabda.errors import Conflict, DependencyFailed, Forbidden, InvalidInput
from llamabda.types import Invite, Role, User

# pk              sk          attributes
# users           <username>  tenant, role, password_hash, disabled, created_at (ISO 8601, UTC), credentials,
#                             withdrawn: how often the account was disabled
# invite#<digest> invite      tenant, role, created_by, expires_at (epoch seconds), expires,
#                             withdrawn: its maker's when it was made
#
# All users are one partition, so that they can be listed in order and read as they are; DynamoDB divides a partition by
# its sort key when it gets busy. An invite is good while its number is its maker's: so disabling, one write, withdraws
# any number of them.
_USERS = "users"
_NEW = "attribute_not_exists(#pk)"
_THERE = "attribute_exists(#pk)"


class DynamoUserStore:
    """The UserStore port over one table."""

    def __init__(self, client: Any, table: str, *, setting: str = "USERS_TABLE") -> None:
        self._table = Table(client, table, dependency="users", setting=setting)

    def add(self, user: User, *, invite: str | None = None, now: float = 0.0) -> None:
        if not _can_be(user.username):
            raise InvalidInput(f"username: 1 to {MAX_SORT_KEY_BYTES} bytes of UTF-8", loc=("body", "username"))
        # a transaction though it may be a single write: it carries a token by which a retry of the client whose first
        # try had arrived is not taken for somebody else's user of the same name
        used = [] if invite is None else self._using(invite, user.username, now)
        try:
            self._table.transact([Put(_user_key(user.username), _user_item(user), _NEW), *used])
        except ConditionFailed as exc:
            if 0 in exc.items:
                raise _taken(user.username) from None
            raise _not_good() from None

    def get(self, username: str) -> User | None:
        found = self._get(username)
        return None if found is None else _user(found)

    def list(self) -> Sequence[User]:
        return [_user(item) for item in self._table.query("#pk = :users", {"users": _USERS})]

    def set_disabled(self, username: str, disabled: bool) -> bool:
        change = "SET #disabled = :disabled"
        values: dict[str, object] = {"disabled": disabled}
        if disabled:
            change, values = f"{change} ADD #credentials :one, #withdrawn :one", {**values, "one": 1}
        return self._change(username, change, _THERE, values)

    def set_password_hash(
        self, username: str, password_hash: str, *, renew: bool = False, instead_of: str | None = None
    ) -> bool:
        change, condition = "SET #password_hash = :hash", _THERE
        values: dict[str, object] = {"hash": password_hash}
        if renew:
            change, values = f"{change} ADD #credentials :one", {**values, "one": 1}
        if instead_of is not None:
            condition, values = f"{_THERE} AND #password_hash = :former", {**values, "former": instead_of}
        return self._change(username, change, condition, values)

    def add_invite(self, invite: Invite) -> None:
        put = Put(_invite_key(invite.digest), _invite_item(invite, withdrawn=0))
        if not invite.created_by:
            self._table.write(put)
            return
        for _ in range(TRIES):
            maker = self._get(invite.created_by)
            if maker is None or maker["disabled"]:
                raise Forbidden(f"{invite.created_by} cannot invite: the account is disabled")
            put = Put(put.key, _invite_item(invite, withdrawn=maker["withdrawn"]))
            try:
                self._table.transact([put, _unchanged_maker(invite.created_by, maker["withdrawn"])])
            except ConditionFailed:
                continue  # disabled since, and perhaps enabled again
            return
        raise DependencyFailed("the account of who invites keeps changing: try again", dependency="users")

    def invite(self, digest: str) -> Invite | None:
        found = self._table.get(_invite_key(digest))
        if found is None:
            return None
        if found["created_by"]:
            maker = self._get(found["created_by"])
            if maker is None or maker["withdrawn"] != found["withdrawn"]:
                return None
        return Invite(digest, found["tenant"], _role(found["role"]), found["created_by"], float(found["expires_at"]))

    def ping(self) -> None:
        self._table.ping()

    def _using(self, digest: str, username: str, now: float) -> Sequence[Delete | Check]:
        """What uses up an invite, along with the user."""
        found = self._table.get(_invite_key(digest))
        if found is None or found["expires_at"] <= now:
            raise _taken(username) if self._get(username) is not None else _not_good()
        if found["created_by"] == username:
            raise _taken(username)
        used = Delete(_invite_key(digest), _THERE)
        return [used, _unchanged_maker(found["created_by"], found["withdrawn"])] if found["created_by"] else [used]

    def _get(self, username: str) -> Item | None:
        return self._table.get(_user_key(username)) if _can_be(username) else None

    def _change(self, username: str, change: str, condition: str, values: Item) -> bool:
        if not _can_be(username):
            return False
        try:
            self._table.write(Update(_user_key(username), change, condition, values))
        except ConditionFailed:
            return False
        return True


def _can_be(username: str) -> bool:
    """Whether a key can hold the name."""
    return 0 < len(username.encode("utf-8", "replace")) <= MAX_SORT_KEY_BYTES


def _taken(username: str) -> Conflict:
    return Conflict(f"username {username!r} is taken: choose another")


def _not_good() -> Forbidden:
    return Forbidden("the invite is not good: it was used already, or has expired")


def _user_key(username: str) -> Key:
    return Key(_USERS, username)


def _invite_key(digest: str) -> Key:
    return Key(f"invite#{digest}", "invite")


def _unchanged_maker(username: str, withdrawn: int) -> Check:
    # the number rises with every disabling, so one that is still the same cannot belong to a disabled account's invite
    condition = "#withdrawn = :withdrawn AND #disabled = :no"
    return Check(_user_key(username), condition, {"withdrawn": withdrawn, "no": False})


def _user_item(user: User) -> Item:
    return {
        "tenant": user.tenant,
        "role": user.role,
        "password_hash": user.password_hash,
        "disabled": user.disabled,
        "created_at": user.created_at.astimezone(UTC).isoformat(),
        "credentials": user.credentials,
        "withdrawn": 0,
    }


def _invite_item(invite: Invite, *, withdrawn: int) -> Item:
    return {
        "tenant": invite.tenant,
        "role": invite.role,
        "created_by": invite.created_by,
        "expires_at": invite.expires_at,
        "expires": forget_at(invite.expires_at),
        "withdrawn": withdrawn,
    }


def _user(item: Item) -> User:
    return User(
        username=item["sk"],
        tenant=item["tenant"],
        role=_role(item["role"]),
        password_hash=item["password_hash"],
        disabled=item["disabled"],
        created_at=datetime.fromisoformat(item["created_at"]),
        credentials=item["credentials"],
    )


def _role(value: object) -> Role:
    return "admin" if value == "admin" else "member"
