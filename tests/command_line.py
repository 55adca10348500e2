"""Commands as they are typed, in this process."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from llamabda.cli import main


def runner(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """What runs a command: exit code, stdout, stderr."""

    def command(*argv: str) -> tuple[int, str, str]:
        try:
            code = main(argv)
        except SystemExit as left:
            code = int(left.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return command
