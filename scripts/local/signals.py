"""Ctrl-C, `kill` and a closed terminal end a program in order: once, and undisturbed."""

from __future__ import annotations

import os
import signal
import stat
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def interrupt() -> None:
    """The first of these signals raises KeyboardInterrupt in the main thread, whatever follows is ignored."""
    for one in ENDING:
        # `nohup` asks for that; for SIGINT a shell does in the background, where `kill -INT` shall end it all the same
        if one != signal.SIGHUP or signal.getsignal(one) is not signal.SIG_IGN:
            signal.signal(one, _interrupted)


def ignore() -> None:
    """What has begun to end is not to be interrupted. Holds for programs that are started from now on, too."""
    for one in ENDING:
        signal.signal(one, signal.SIG_IGN)


def _interrupted(number: int, _frame: FrameType | None) -> None:
    ignore()
    if number == signal.SIGHUP:
        _leave_terminal()
    raise KeyboardInterrupt


def _leave_terminal() -> None:
    """Every line to a terminal that is gone would be an error."""
    with open(os.devnull, "r+b", buffering=0) as nowhere:
        for number in (0, 1, 2):
            if stat.S_ISCHR(os.fstat(number).st_mode):
                os.dup2(nowhere.fileno(), number)
