"""`llamabda serve` and `llamabda demo`."""

from __future__ import annotations

import os
from argparse import Namespace
from importlib import import_module
from pathlib import Path

from llamabda.cli.console import Console
from llamabda.cli.start import make_home
from llamabda.errors import ConfigurationError
from llamabda.settings import obsolete, settings

FIRST_STEPS = """\
Llamabda listens on {url}, its documents are in {home}. Ctrl-C stops it.

  curl {url}/health
  curl {url}/auth/register -H 'Content-Type: application/json' -d '{{"username":"alice","password":"secret123"}}'
  TOKEN=$(curl -s {url}/auth/login -H 'Content-Type: application/json' \\
    -d '{{"username":"alice","password":"secret123"}}' | sed 's/.*"access_token":"\\([^"]*\\)".*/\\1/')
  curl {url}/training/train -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' \\
    -d '{{"texts":["The harbour office opens at eight."]}}'
  curl {url}/ask/question -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' \\
    -d '{{"question":"When does the harbour office open?"}}'

All endpoints: {url}/docs
"""
APP = "llamabda_functions.local.app"  # by name: the command line itself needs no web framework


def serve(arguments: Namespace, console: Console) -> int:
    make_home()
    host = arguments.host or settings().host
    port = settings().port if arguments.port is None else arguments.port
    try:
        app = import_module(APP)
    except ModuleNotFoundError as exc:
        message = f"serving needs the package {exc.name}: install llamabda[local]"
        raise ConfigurationError(message) from exc
    for warning in obsolete():
        console.note(f"warning: {warning}")
    shown = "127.0.0.1" if host in ("0.0.0.0", "::", "") else f"[{host}]" if ":" in host else host  # noqa: S104
    console.note(FIRST_STEPS.format(url=f"http://{shown}:{port}", home=settings().home_dir))
    console.flush()
    try:
        app.serve(host=host, port=port)
    except KeyboardInterrupt:
        return 0  # the way to stop it
    return 0


def demo(arguments: Namespace, console: Console) -> int:
    if arguments.home is None:
        os.environ["LLAMABDA_HOME"] = str(Path(".demo").absolute())
        settings.cache_clear()
    from llamabda.demo import run

    make_home()
    return run(settings().home_dir, console)
