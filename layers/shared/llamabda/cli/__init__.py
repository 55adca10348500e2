"""The command `llamabda`. Results go to stdout, everything else to stderr; `--json` prints what HTTP would send."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from llamabda.cli.arguments import parser
from llamabda.cli.console import Console
from llamabda.errors import (
    Busy,
    ConfigurationError,
    Conflict,
    DependencyFailed,
    Forbidden,
    Gone,
    InvalidInput,
    LlamabdaError,
    ModelError,
    NotFound,
    TooLarge,
    TooManyRequests,
    Unauthorized,
)

OK, SOME_FAILED, USAGE, NOT_FOUND, REFUSED, DEPENDENCY, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130

EXIT_CODES: tuple[tuple[tuple[type[LlamabdaError], ...], int], ...] = (
    ((InvalidInput, TooLarge, ConfigurationError), USAGE),
    ((NotFound, Gone), NOT_FOUND),
    ((Unauthorized, Forbidden, Conflict, TooManyRequests), REFUSED),
    ((Busy, DependencyFailed, ModelError), DEPENDENCY),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code: 0 ok, 1 some failed, 2 usage, 3 not found, 4 refused, 5 dependency,
    130 interrupted."""
    arguments = parser().parse_args(argv)  # leaves with 2 by itself
    if arguments.home is not None:
        os.environ["LLAMABDA_HOME"] = os.path.abspath(os.path.expanduser(arguments.home))
    console = Console(json=arguments.json)
    try:
        from llamabda.cli.start import checked_settings

        checked_settings()
        code = int(arguments.command(arguments, console))
        console.flush()
        return code
    except LlamabdaError as error:
        console.failure(error)
        return next((code for kinds, code in EXIT_CODES if isinstance(error, kinds)), SOME_FAILED)
    except KeyboardInterrupt:
        console.note("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # whoever read our output has gone; python would complain once more when it flushes at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SOME_FAILED


def run() -> NoReturn:
    """The command as a process of its own. It ends without the interpreter's tear-down, which would kill threads that
    are inside native code (a model that is still being loaded): their C++ frames answer that with an abort."""
    try:
        code = main()
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:  # noqa: BLE001  (what the interpreter would do with it)
        traceback.print_exc()
        code = SOME_FAILED
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # whoever read it has gone
            stream.flush()
    os._exit(code)
