"""How the stack on one machine takes signals: programs that are sent some."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import termios

import pytest

from tests.conftest import ROOT

SECONDS = 60  # for a program to do what it is told, at most

# Tells each step; ends when it is told to by a line, or by a signal.
ENDING = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from scripts.local import signals
signals.interrupt()
try:
    print("ready", flush=True)
    sys.stdin.readline()
    print("not interrupted", flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.stdin.readline()
    print("down", flush=True)
"""


@pytest.mark.parametrize("first", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("second", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_the_first_signal_ends_it_and_no_other_disturbs_the_ending(first, second):
    command = [sys.executable, "-c", ENDING]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(getattr(signal, first))
        assert process.stdout.readline() == "interrupted\n"
        process.send_signal(getattr(signal, second))
        out, _ = process.communicate("\n", SECONDS)
    assert (out, process.returncode) == ("down\n", 0)


def test_nohup_is_heard():
    def unhung() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with subprocess.Popen(
        [sys.executable, "-c", ENDING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=unhung
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGHUP)
        out, _ = process.communicate("\n", SECONDS)
    assert out == "not interrupted\n"


def test_a_closed_terminal_does_not_break_the_ending(tmp_path):
    ended = tmp_path / "ended"
    script = f"""
import pathlib, sys, time
sys.path.insert(0, {str(ROOT)!r})
from scripts.local import signals
signals.interrupt()
try:
    print("ready", flush=True)
    time.sleep({SECONDS})
except KeyboardInterrupt:
    print("ending ...", flush=True)
    pathlib.Path({str(ended)!r}).write_text("in order")
"""
    master, terminal = os.openpty()

    def controlling() -> None:
        os.setsid()
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=terminal, stdout=terminal, stderr=terminal, preexec_fn=controlling
    )
    os.close(terminal)
    assert b"ready" in os.read(master, 100)
    os.close(master)  # the window is closed: SIGHUP
    assert process.wait(SECONDS) == 0
    assert ended.read_text() == "in order"
