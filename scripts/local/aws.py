"""S3, DynamoDB, SQS, EventBridge and KMS, played by moto: `python -m local.aws --port 5000`.

moto handles the requests of several threads at once without shutting them out from each other (a transaction that fails
takes back what others have written meanwhile), where AWS's single calls are atomic. So one is handled after another.
"""

from __future__ import annotations

import argparse
import threading
from collections.abc import Iterable
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


def make_server(host: str, port: int) -> BaseWSGIServer:
    """Listens already; port 0: any that is free."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler
    from werkzeug.serving import make_server as make

    class Quiet(WSGIRequestHandler):
        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            pass

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
