"""What an answer of the running function says of its cost."""

from __future__ import annotations

import math

import pytest

from scripts.local import template


def test_an_answer_says_what_it_cost(alice):
    reply = alice.ask("What does anything cost here?")
    usage, seconds = reply["usage"], reply["timings"]["total"] / 1000
    memory = int(template.read()["Parameters"]["AskMemory"]["Default"]) / 1024
    # from the request's arrival to the answer, which is a little more than the question took
    assert math.floor(1000 * seconds) / 1000 * memory <= usage["gb_seconds"] <= 30 * memory
    prices = [usage["gb_seconds"] * per + 2e-7 for per in (0.0000166667, 0.0000133334)]
    assert usage["estimated_cost_usd"] in [pytest.approx(price, abs=1e-9) for price in prices]
