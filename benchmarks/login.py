"""Whether the time of a login tells if a user exists: known and unknown names in turns, over the use case."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import OURS, Row, Samples, seconds
from benchmarks.plan import Plan
from llamabda.adapters.argon2 import Argon2Hasher
from llamabda.adapters.key_file import KeyFileSigner
from llamabda.adapters.sqlite.attempts import SqliteAttemptStore
from llamabda.adapters.sqlite.database import Database
from llamabda.adapters.sqlite.sessions import SqliteSessionStore
from llamabda.adapters.sqlite.users import SqliteUserStore
from llamabda.auth import Auth, Limits
from llamabda.errors import Unauthorized

TRIES, QUICK_TRIES = 2_000, 100


def run(plan: Plan) -> Iterator[Row]:
    tries = QUICK_TRIES if plan.quick else TRIES
    with tempfile.TemporaryDirectory(prefix="llamabda-bench-") as name:
        database = Database(Path(name) / "users.db")
        auth = Auth(
            users=SqliteUserStore(database),
            sessions=SqliteSessionStore(database),
            attempts=SqliteAttemptStore(database),
            signer=KeyFileSigner(Path(name) / "key.pem", keep=60),
            hasher=Argon2Hasher(),
            issuer="bench",
            audience="bench",
            lifetime=60,
            limits=Limits(account=10**6, address=10**6),  # else there would be ten
        )
        auth.register("known", "a-password")
        plan.say(f"login: {tries} wrong logins")

        def attempt(username: str) -> None:
            try:
                auth.login(username, "another-password", address="192.0.2.1")
            except Unauthorized:
                return
            raise AssertionError("a wrong password was taken")

        known, unknown = [], []
        for _ in range(tries // 2):
            known.append(1e3 * seconds(lambda: attempt("known")))
            unknown.append(1e3 * seconds(lambda: attempt("nobody")))
        database.close()
    apart = abs(statistics.median(known) - statistics.median(unknown))
    note = (
        f"medians {statistics.median(known):.2f} ms known, {statistics.median(unknown):.2f} ms unknown; {tries} tries"
    )
    yield Row(
        "login", "wrong logins: known and unknown user apart", "ms", Samples(OURS, (apart,)), aim="<= 2 ms", note=note
    )
