#!/usr/bin/env python3
"""MITRE ATT&CK Mobile into Llamabda: one document for each technique, each mitigation and each relation between them.

Needs Python 3.11 or later and nothing else. What is in the collection already stays as it is, so that the script can be
run again at any time: after an interruption it goes on. A newer bundle replaces all: each document says of which
version it is.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from attack_mobile import bundle, documents, download
from attack_mobile.api import Api, ApiError, Unauthorized, UsageError, is_local
from attack_mobile.progress import Progress
from attack_mobile.upload import Outcome, Upload

OK, SOME_FAILED, USAGE, REFUSED, DEPENDENCY, INTERRUPTED = 0, 1, 2, 4, 5, 130
TOKEN = "LLAMABDA_TOKEN"  # noqa: S105  (the variable's name)
USUAL_CHUNK = 800  # characters: the server's own

EPILOG = f"""\
exit codes: 0 all is there; 1 some documents failed, are not ready yet, or could not be read; 2 wrong usage or not an
ATT&CK Mobile bundle; 4 the token is refused; 5 no network, or the API does not answer; 130 interrupted

  export {TOKEN}=...       # access_token from POST /auth/login
  python3 scripts/ingest_mitre_mobile.py --api http://127.0.0.1:8000

ATT&CK is a trademark of The MITRE Corporation; its terms of use are at https://attack.mitre.org/resources/legal-and-branding/terms-of-use/
"""


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    progress = Progress("documents", 0)
    try:
        return _run(options, progress)
    except KeyboardInterrupt:
        progress.close()
        print("interrupted: what was sent is stored; run the same command again to go on", file=sys.stderr)
        return INTERRUPTED
    except (UsageError, bundle.BundleError) as exc:
        progress.close()
        print(f"error: {exc}", file=sys.stderr)
        return USAGE
    except Unauthorized as exc:
        progress.close()
        print(f"error: {exc}", file=sys.stderr)
        return REFUSED
    except download.DownloadError as exc:
        print(f"error: {exc}\nDownload it elsewhere and give it with --file BUNDLE.", file=sys.stderr)
        return DEPENDENCY
    except ApiError as exc:
        progress.close()
        print(f"error: {exc}\nWhat was sent is stored; run the same command again to go on.", file=sys.stderr)
        return DEPENDENCY


def _run(options: argparse.Namespace, progress: Progress) -> int:
    token = options.token or os.environ.get(TOKEN, "")
    if not token:
        raise UsageError(f"no token: set {TOKEN}, or give --token; POST /auth/login returns one as access_token")
    api = Api(options.api, token, progress.say)
    if options.api.lower().startswith("http:") and not is_local(options.api):
        progress.say(f"warning: {options.api} is not https, the token can be read on the way")
    found = _bundle(options.file)
    for problem in found.problems:
        progress.say(f"skipped: {problem}")
    if found.problems and options.prune:
        raise UsageError("--prune needs a bundle without faults: what was skipped would be deleted")
    made = documents.of(found, options.include)[: options.limit]
    size = options.chunk_size or USUAL_CHUNK
    cut = sum(_beginning(one) > size for one in made)
    if cut:
        progress.say(
            f"warning: chunks of {size} characters cut the list of mitigations or techniques in {cut} documents"
        )
    progress.total = len(made)
    upload = Upload(api, progress, options.chunk_size, options.chunk_overlap)
    outcome = upload.send(made)
    upload.wait(outcome, seconds=options.wait)
    progress.close()
    gone = upload.stale({one.id for one in documents.of(found, tuple(documents.KINDS))}) if options.prune else []
    for doc_id in gone:
        api.delete(doc_id)
    _report(outcome, len(gone), len(made), pruned=options.prune)
    return SOME_FAILED if outcome.failed or outcome.queued or found.problems else OK


def _bundle(file: Path | None) -> bundle.Bundle:
    if file is None:
        return bundle.read(download.fetch(), name=download.URL)
    try:
        return bundle.read(file.read_bytes(), name=str(file))
    except OSError as exc:
        raise UsageError(f"cannot read {file}: {exc.strerror}") from exc


def _beginning(document: documents.Document) -> int:
    """Characters up to the end of the first paragraph, which must not be cut."""
    return len("\n\n".join(document.text.split("\n\n")[:2])) if document.metadata.get("type") != "relation" else 0


def _report(outcome: Outcome, gone: int, count: int, *, pruned: bool) -> None:
    parts = [f"{len(outcome.ready)} new or changed", f"{len(outcome.unchanged)} unchanged"]
    if outcome.queued:
        parts.append(f"{len(outcome.queued)} still queued (GET /documents tells how they go on)")
    if outcome.failed:
        parts.append(f"{len(outcome.failed)} failed")
    if pruned:
        parts.append(f"{gone} deleted that the bundle no longer has")
    print(f"{count} documents: {', '.join(parts)}")


def _kinds(value: str) -> tuple[str, ...]:
    kinds = tuple(part.strip() for part in value.split(",") if part.strip())
    unknown = [kind for kind in kinds if kind not in documents.KINDS]
    if unknown or not kinds:
        raise argparse.ArgumentTypeError(f"{value!r}: choose from {','.join(documents.KINDS)}")
    return kinds


def _positive(value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is not a whole number above 0")
    return int(value)


def _count(value: str) -> int:
    if not value.isdecimal():
        raise argparse.ArgumentTypeError(f"{value!r} is not a whole number")
    return int(value)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--api", metavar="URL", default="http://127.0.0.1:8000", help="where Llamabda is (%(default)s)")
    parser.add_argument(
        "--token", help=f"access token; better in the environment as {TOKEN}, where no list of processes shows it"
    )
    parser.add_argument(
        "--include",
        metavar="KINDS",
        type=_kinds,
        default=tuple(documents.KINDS),
        help=f"what to make documents of: {','.join(documents.KINDS)} (all)",
    )
    parser.add_argument("--file", metavar="BUNDLE", type=Path, help="a STIX bundle; without it, MITRE's is downloaded")
    parser.add_argument("--limit", metavar="N", type=_positive, help="at most this many documents")
    parser.add_argument("--chunk-size", metavar="CHARS", type=_positive, help=f"the server's own is {USUAL_CHUNK}")
    parser.add_argument("--chunk-overlap", metavar="CHARS", type=_count, help="less than the chunk size")
    parser.add_argument(
        "--wait",
        metavar="SECONDS",
        type=_count,
        default=600,
        help="how long to wait in the end for what the server has queued (%(default)s)",
    )
    parser.add_argument(
        "--prune",
        action="store_true",
        help=f"delete documents {documents.PREFIX}... of an earlier run that the bundle no longer has, of all kinds",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
