"""What an invocation has cost, counted by hand."""

from __future__ import annotations

import pytest

from llamabda import rendering
from llamabda.http_shapes import Reply as Shape
from llamabda.receipts import Receipts, gb_seconds
from llamabda.types import Reply, Usage

REPLY = Reply("An answer [1].", True, "extractive", "stop", (), None, Usage(600, 400, 75), {"total": 12.0})


@pytest.mark.parametrize(
    ("seconds", "memory", "expected"),
    [
        (1.0, 1024, 1.0),
        (3.0, 5120, 15.0),
        (0.0011, 1024, 0.002),  # a millisecond begun is billed
        (0.001, 1024, 0.001),
        (0.003 + 1e-15, 1024, 0.003),
        (0.25, 512, 0.125),
        (0.0, 1024, 0.0),
        (-1.0, 1024, 0.0),
    ],
)
def test_run_time_is_billed_in_whole_milliseconds_times_memory(seconds, memory, expected):
    assert gb_seconds(seconds, memory) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("architecture", "expected"),
    # 15 GB-seconds and one request of 20 cents a million
    [("x86_64", 15 * 0.0000166667 + 0.0000002), ("arm64", 15 * 0.0000133334 + 0.0000002)],
)
def test_a_receipt_counts_running_and_the_request(architecture, expected):
    found = Receipts(5120, architecture).on(REPLY, 3.0)
    assert found.usage.gb_seconds == 15.0
    assert found.usage.estimated_cost_usd == pytest.approx(expected, abs=1e-9)
    assert (found.usage.prompt_tokens, found.answer, found.timings) == (600, REPLY.answer, REPLY.timings)


def test_both_renderings_have_the_receipt_or_leave_it_out():
    tokens = {"prompt_tokens": 600, "cached_tokens": 400, "completion_tokens": 75}
    for made, more in (
        (REPLY, {}),
        (Receipts(1024, "arm64").on(REPLY, 0.5), {"gb_seconds": 0.5, "estimated_cost_usd": 0.000006867}),
    ):
        assert rendering.reply(made)["usage"] == tokens | more
        assert Shape.of(made).model_dump(mode="json")["usage"] == tokens | more


def test_the_schema_says_number_or_nothing():
    fields = Shape.model_json_schema(mode="serialization")["$defs"]["Usage"]
    for name in ("gb_seconds", "estimated_cost_usd"):
        assert fields["properties"][name]["type"] == "number"
        assert "On Lambda only" in fields["properties"][name]["description"]
        assert name not in fields["required"]
