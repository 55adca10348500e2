"""`python -m llamabda` is the command `llamabda`."""

from llamabda.cli import run

run()
