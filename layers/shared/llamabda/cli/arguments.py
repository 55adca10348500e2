"""The words that `llamabda` understands."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module

from llamabda import __version__
from llamabda.cli import cost_arguments
from llamabda.types import SHARED_TENANT

DESCRIPTION = """\
Answers questions over your own documents, with citations that you can check. Everything runs on this machine.

  llamabda demo                      see it work, from nothing, in one command
  llamabda ingest handbook.pdf notes/
  llamabda ask "How long is the warranty?"
  llamabda serve                     the same over HTTP
"""
EPILOG = """\
exit codes: 0 ok, 1 some failed, 2 usage, 3 not found, 4 refused (not allowed, or no answer in the documents),
5 a model or store did not work, 130 interrupted.
settings come from the environment or a file .env: LLAMABDA_HOME (where everything is kept, ~/.llamabda), MODEL_PATH,
EMBED_MODEL_NAME, HOST, PORT and more, see .env.example.
"""

Command = Callable[[argparse.Namespace, object], int]


def parser() -> argparse.ArgumentParser:
    """All commands with their options. `command` in the result is the function that runs it."""
    common = _common()
    top = argparse.ArgumentParser(
        prog="llamabda",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"llamabda {__version__}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")

    serve = _add(commands, "serve", "answer over HTTP until interrupted", "serving:serve", common)
    serve.add_argument("--host", help="address to listen on (HOST, 127.0.0.1); 0.0.0.0 for all")
    serve.add_argument("--port", type=_between(0, 65_535), help="port to listen on (PORT, 8000)")

    _add(
        commands,
        "demo",
        "from nothing to three cited answers: gets the models, starts a server, ingests samples, asks",
        "serving:demo",
        common,
    )

    ingest = _add(
        commands, "ingest", "make files answerable: text, Markdown, HTML, PDF", "documents:ingest", common, tenant=True
    )
    ingest.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="a file, or a folder with all that is in it; a document's id is its path below the folder",
    )
    ingest.add_argument("--chunk-size", type=int, default=800, help="characters of a chunk (%(default)s)")
    ingest.add_argument("--chunk-overlap", type=int, default=100, help="characters neighbours share (%(default)s)")

    ask = _add(commands, "ask", "an answer with its citations", "questions:ask", common, tenant=True)
    ask.add_argument("question", help="in quotes; - reads it from stdin")
    ask.add_argument("--top-k", type=_between(1, 50), default=3, help="passages to answer from (%(default)s)")
    ask.add_argument("--max-tokens", type=_between(1, 4096), default=200, help="length of the answer (%(default)s)")
    ask.add_argument(
        "--mode",
        choices=("auto", "extractive", "generated"),
        default="auto",
        help="extractive answers in milliseconds with sentences of the documents (%(default)s)",
    )

    search = _add(commands, "search", "the passages that fit best", "questions:search", common, tenant=True)
    search.add_argument("query", help="in quotes; - reads it from stdin")
    search.add_argument("--top-k", type=_between(1, 100), default=5, help="how many (%(default)s)")

    for asking in (ask, search):
        asking.add_argument(
            "--filter",
            metavar="JSON",
            help='only documents with this metadata, for example \'{"year": {"$gte": 2025}}\'',
        )

    again = _add(
        commands,
        "reindex",
        "give all documents vectors of another embedding model (EMBED_MODEL_NAME), while the former one answers",
        "reindexing:reindex",
        common,
    )
    again.add_argument(
        "--anew",
        action="store_true",
        help="into a new index, though the model is the same: after KNN_ENGINE, KNN_SPACE or OPENSEARCH_SHARDS changed",
    )

    _docs(commands.add_parser("docs", help="list, show and remove documents"), common)
    _users(commands.add_parser("users", help="add, invite, list and disable accounts"), common)
    _keys(commands.add_parser("keys", help="list and rotate the keys that sign tokens"), common)
    _models(
        commands.add_parser("models", help="list and get models, and bring in any of sentence-transformers"), common
    )
    cost_arguments.add(
        _add(commands, "cost", "what the bundle costs on AWS: idle, and for each answer", "costs:cost", common)
    )
    _add(commands, "doctor", "check that everything works here, and say what to do where not", "doctor:doctor", common)
    return top


def _docs(docs: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    commands = docs.add_subparsers(title="commands", required=True, metavar="COMMAND")
    listing = _add(commands, "list", "documents in order of id", "documents:list_documents", common, tenant=True)
    listing.add_argument("--state", choices=("queued", "processing", "ready", "failed"), help="only these")
    listing.add_argument("--limit", type=_between(1, 1000), default=50, help="how many (%(default)s)")
    listing.add_argument("--cursor", help="go on from here: next_cursor of the listing before")
    show = _add(commands, "show", "what is known about one document", "documents:show", common, tenant=True)
    show.add_argument("id")
    show.add_argument("--text", action="store_true", help="its text instead, as citations point into it")
    remove = _add(commands, "rm", "remove documents", "documents:remove", common, tenant=True)
    remove.add_argument("ids", nargs="+", metavar="ID")


def _users(users: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    commands = users.add_subparsers(title="commands", required=True, metavar="COMMAND")
    add = _add(commands, "add", "make an account; asks for the password", "users:add", common)
    add.add_argument("username")
    add.add_argument("--password-stdin", action="store_true", help="read the password from the first line of stdin")
    add.add_argument("--tenant", help="join this tenant (see `users list`) instead of getting a new one")
    add.add_argument("--role", choices=("member", "admin"), default="member", help="(%(default)s)")
    _add(commands, "list", "all accounts", "users:list_users", common)
    invite = _add(commands, "invite", "a secret with which one person can register", "users:invite", common)
    invite.add_argument("--tenant", help="to join this tenant (see `users list`) instead of getting a new one")
    invite.add_argument("--role", choices=("member", "admin"), default="member", help="(%(default)s)")
    password = _add(commands, "password", "give an account a new password; ends its sessions", "users:password", common)
    password.add_argument("username")
    password.add_argument("--password-stdin", action="store_true", help="read it from the first line of stdin")
    for word, what in (
        ("disable", "end all that an account has open, and let it not log in again"),
        ("enable", "let an account log in again"),
    ):
        _add(commands, word, what, f"users:{word}", common).add_argument("username")


def _keys(keys: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    commands = keys.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add(commands, "list", "the keys, in the order in which they sign", "keys:list_keys", common)
    rotate = _add(commands, "rotate", "add a key, which signs two hours later", "keys:rotate", common)
    rotate.add_argument("--now", action="store_true", help="it signs at once: fine when only this server checks tokens")


def _models(models: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    commands = models.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add(commands, "list", "the models that have a name, and those that were exported", "models:list_models", common)
    get = _add(commands, "get", "fetch and prepare a model of the catalogue", "models:get", common)
    get.add_argument("name", metavar="NAME", help="as `llamabda models list` shows it")
    export = _add(
        commands,
        "export",
        "make any sentence-transformers model usable without torch, and check it; needs llamabda[export]",
        "models:export_model",
        common,
    )
    export.add_argument("model", metavar="NAME", help="a folder that sentence-transformers saved, or a name of the hub")
    export.add_argument("--name", help="what EMBED_MODEL_NAME shall call it (the folder's or the hub's name)")
    export.add_argument(
        "--precision", choices=("int8", "float32"), default="int8", help="of the weight matrices (%(default)s)"
    )
    export.add_argument(
        "--background", type=_cosine, metavar="COSINE", help="of unrelated texts; measured where not given"
    )
    export.add_argument("--query-prompt", metavar="TEXT", help="put before a question, where the model does not say")
    export.add_argument("--document-prompt", metavar="TEXT", help="put before a passage, where the model does not say")
    export.add_argument("--max-tokens", type=_between(8, 100_000), help="read less of a text than the model could")
    export.add_argument("--languages", type=_codes, metavar="pt,en", help="where its card does not say")
    export.add_argument("--licence", metavar="SPDX", help="where its card does not say")


def _common() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print the result as JSON, as the HTTP interface sends it")
    common.add_argument("--home", help="where everything is kept (LLAMABDA_HOME)")
    return common


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    what: str,
    target: str,
    common: argparse.ArgumentParser,
    *,
    tenant: bool = False,
) -> argparse.ArgumentParser:
    added = commands.add_parser(
        name, help=what, description=what[0].upper() + what[1:] + ".", parents=[common], allow_abbrev=False
    )
    added.set_defaults(command=_lazy(target))
    if tenant:
        added.add_argument("--tenant", default=SHARED_TENANT, help="whose documents (%(default)s: everybody's)")
    return added


def _lazy(target: str) -> Command:
    """The function `module:name` of this package, imported when it runs: `--help` must be quick."""

    def run(arguments: argparse.Namespace, console: object) -> int:
        module, name = target.split(":")
        if module not in ("costs", "doctor", "models", "serving"):
            import_module("llamabda.cli.start").make_home()
        command: Command = getattr(import_module(f"llamabda.cli.{module}"), name)
        return command(arguments, console)

    return run


def _between(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = low - 1
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"{text[:100]!r} is not a whole number from {low} to {high}")
        return number

    return parse


def _cosine(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1:
        raise argparse.ArgumentTypeError(f"{text[:100]!r} is not a cosine from 0 to below 1")
    return number


def _codes(text: str) -> tuple[str, ...]:
    codes = tuple(code.strip() for code in text.lower().split(","))
    if not all(code.isascii() and code.isalpha() and len(code) in (2, 3) for code in codes):
        raise argparse.ArgumentTypeError(f"{text[:100]!r} is not a list of language codes such as pt,en")
    return codes
