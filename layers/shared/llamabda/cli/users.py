"""`llamabda users ...`"""

from __future__ import annotations

import getpass
import sys
from argparse import Namespace

from llamabda import rendering, wiring
from llamabda.auth import canonical_username
from llamabda.cli.console import Console
from llamabda.cli.start import checked_tenant
from llamabda.errors import InvalidInput, NotFound


def add(arguments: Namespace, console: Console) -> int:
    """Passwords come from a prompt or stdin: an argument would be visible to everybody on the machine."""
    tenant = None if arguments.tenant is None else checked_tenant(arguments.tenant)
    canonical_username(arguments.username)  # a bad name is said before the password is asked for
    password = _password(from_stdin=arguments.password_stdin)
    user = wiring.auth().register(arguments.username, password, tenant=tenant, role=arguments.role)
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


def _set(username: str, console: Console, *, disabled: bool) -> int:
    name = canonical_username(username)
    if not wiring.users().set_disabled(name, disabled):
        raise NotFound(f"there is no user {name!r}: `llamabda users list` shows them")
    if console.json:
        user = wiring.users().get(name)
        console.data(rendering.user(user) if user else {})
    else:
        console.note(f"{name} {'can no longer' if disabled else 'can'} log in")
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
