"""`llamabda users ...`"""

from __future__ import annotations

import getpass
import sys
from argparse import Namespace
from datetime import UTC, datetime

from llamabda import rendering, wiring
from llamabda.accounts import DISABLED_WITHIN
from llamabda.cli.console import Console
from llamabda.cli.start import checked_tenant
from llamabda.credentials import canonical_username
from llamabda.errors import InvalidInput
from llamabda.types import User

ENDED = f"what was open ends within {DISABLED_WITHIN:.0f} s"


def add(arguments: Namespace, console: Console) -> int:
    """Passwords come from a prompt or stdin: an argument would be visible to everybody on the machine."""
    tenant = None if arguments.tenant is None else checked_tenant(arguments.tenant)
    canonical_username(arguments.username)  # a bad name is said before the password is asked for
    password = _password(from_stdin=arguments.password_stdin)
    user = wiring.auth().add(arguments.username, password, tenant=tenant, role=arguments.role)
    if console.json:
        console.data({"username": user.username, "tenant": user.tenant})
    else:
        console.result(f"{user.username}  {user.tenant}  {user.role}")
    return 0


def list_users(_arguments: Namespace, console: Console) -> int:
    users = wiring.users().list()
    if console.json:
        console.data({"users": [rendering.user(user) for user in users]})
        return 0
    width = max((len(user.username) for user in users), default=0)
    for user in users:
        state = "disabled" if user.disabled else user.role
        console.result(f"{user.username:<{width}}  {user.tenant:<28}  {state:<8}  {user.created_at:%Y-%m-%d}")
    if not users:
        console.note("no accounts yet: `llamabda users add NAME`, or POST /auth/register")
    return 0


def disable(arguments: Namespace, console: Console) -> int:
    return _set(arguments.username, console, disabled=True)


def enable(arguments: Namespace, console: Console) -> int:
    return _set(arguments.username, console, disabled=False)


def password(arguments: Namespace, console: Console) -> int:
    name = wiring.auth().user(arguments.username).username
    user = wiring.auth().set_password(name, _password(from_stdin=arguments.password_stdin))
    return _tell(user, console, f"{user.username} has a new password; {ENDED}")


def invite(arguments: Namespace, console: Console) -> int:
    tenant = None if arguments.tenant is None else checked_tenant(arguments.tenant)
    secret, made = wiring.auth().new_invite(None, tenant=tenant, role=arguments.role)
    expires_at = datetime.fromtimestamp(made.expires_at, UTC)
    if console.json:
        shown = {"invite": secret, "tenant": made.tenant, "role": made.role, "expires_at": rendering.moment(expires_at)}
        console.data(shown)
    else:
        console.result(secret)
        console.note(f"to register once as {made.role} of {made.tenant}, until {expires_at:%Y-%m-%d %H:%M} UTC")
    return 0


def _set(username: str, console: Console, *, disabled: bool) -> int:
    user = wiring.auth().set_disabled(username, disabled)
    what = f"can no longer log in; {ENDED}" if disabled else "can log in"
    return _tell(user, console, f"{user.username} {what}")


def _tell(user: User, console: Console, text: str) -> int:
    if console.json:
        console.data(rendering.user(user))
    else:
        console.note(text)
    return 0


def _password(*, from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise InvalidInput("there is no terminal to ask for the password: use --password-stdin")
    password = getpass.getpass("Password (8 characters or more): ")
    if getpass.getpass("The same again: ") != password:
        raise InvalidInput("the two passwords differ")
    return password
