"""S3, DynamoDB, SQS, EventBridge and KMS, played by moto: `python scripts/local/aws.py --port 5000`.

moto handles the requests of several threads at once without shutting them out from each other (a transaction that fails
takes back what others have written meanwhile), where AWS's single calls are atomic. So one is handled after another.
It also copies a whole table for every item of a transaction, to be able to take it back: here only those items are.
"""

from __future__ import annotations

import argparse
import copy
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from werkzeug.serving import BaseWSGIServer


class OneAtATime:
    """A WSGI application whose requests do not overlap."""

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app
        self._lock = threading.Lock()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        with self._lock:
            return list(self._app(environ, start_response))


def keep_only_what_a_transaction_touches() -> None:
    """Makes transactions of this process's moto as fast in a large table as they are in a small one."""
    from moto.dynamodb.exceptions import MockValidationException, TransactionCanceledException
    from moto.dynamodb.models import DynamoDBBackend
    from moto.dynamodb.models.dynamo_type import DynamoType

    whole = DynamoDBBackend.transact_write_items
    if hasattr(whole, "whole"):
        return

    def transact_write_items(self: Any, transact_items: list[dict[str, Any]]) -> None:
        kept = []
        for action in transact_items:
            ((kind, request),) = action.items()
            table = self.tables.get(request["TableName"])
            if table is not None and table.range_key_attr:
                given = request["Item" if kind == "Put" else "Key"]
                hash_key, range_key = (DynamoType(given[name]) for name in (table.hash_key_attr, table.range_key_attr))
                items = table.items[hash_key]
                kept.append((items, range_key, copy.deepcopy(items.get(range_key))))
        try:
            with _uncopied({table for table in self.tables.values() if table.range_key_attr}):
                whole(self, transact_items)
        except (MockValidationException, TransactionCanceledException):
            for items, range_key, former in kept:
                if former is None:
                    items.pop(range_key, None)
                else:
                    items[range_key] = former
            raise

    transact_write_items.whole = whole  # type: ignore[attr-defined]  # so that it is not done twice
    DynamoDBBackend.transact_write_items = transact_write_items  # type: ignore[method-assign]


@contextmanager
def _uncopied(tables: set[Any]) -> Iterator[None]:
    """A deep copy of one of these is the table itself."""
    from moto.dynamodb.models.table import Table

    def itself(self: Any, memo: dict[int, Any]) -> Any:
        if self in tables:
            return self
        copied = memo[id(self)] = self.__class__.__new__(self.__class__)
        vars(copied).update(copy.deepcopy(vars(self), memo))
        return copied

    Table.__deepcopy__ = itself  # type: ignore[attr-defined]
    try:
        yield
    finally:
        del Table.__deepcopy__  # type: ignore[attr-defined]


def make_server(host: str, port: int) -> BaseWSGIServer:
    """Listens already; port 0: any that is free."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler
    from werkzeug.serving import make_server as make

    class Quiet(WSGIRequestHandler):
        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            pass

    keep_only_what_a_transaction_touches()
    app: Any = DomainDispatcherApplication(create_backend_app)
    return make(host, port, OneAtATime(app), threaded=True, request_handler=Quiet)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=5000)
    given = parser.parse_args()
    server = make_server(given.host, given.port)
    print(f"moto listens on {given.host}:{server.port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
