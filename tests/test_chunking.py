"""Chunks: where they are, what they cover, and how long cutting takes on texts that nobody would write."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from llamabda.chunking import Chunking, split
from llamabda.errors import InvalidInput

BLOCKS = st.sampled_from(
    [
        "# Title\n",
        "## Section\n\n",
        "A sentence of some words. And another one!\n",
        "\n",
        "   \n\t\n",
        "\r\n",
        "```python\nx = 1\n# no heading\n```\n",
        "~~~\n",
        "```\n",
        "| a | b |\n|---|---|\n| 1 | 2 |\n",
        "- item\n  - nested\n",
        "> quoted\n",
        "word " * 60,
        "x" * 300,
        "\x1c\x1f ",
        "ação não é só coração. ",
        "👩‍👩‍👧 e\u0301 \ud800",
        "日本語の文章です。",
    ]
)
TEXTS = st.one_of(
    st.text(max_size=400),
    st.lists(BLOCKS, max_size=40).map("".join),
    st.lists(BLOCKS, min_size=150, max_size=220).map("".join),  # longer than one window
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(TEXTS, st.integers(50, 400), st.integers(0, 120), st.booleans())
@example("## H\n\n" + "word " * 300, 200, 40, True)
@example("# a\n" * 500, 100, 10, True)
@example("```\n" + "# not a heading\n\n" * 800, 200, 20, True)
def test_chunks_are_in_order_not_blank_not_too_long_and_cover_everything(text, size, overlap, markdown):
    chunking = Chunking(size, min(overlap, size - 1))
    spans = split(text, chunking, markdown=markdown)
    covered = previous_start = 0
    for span in spans:
        assert 0 <= span.start < span.end <= len(text)
        assert span.end - span.start <= size
        assert text[span.start : span.end].strip()
        assert span.start >= previous_start
        assert not text[covered : span.start].strip(), "text between two chunks is lost"
        previous_start, covered = span.start, max(covered, span.end)
    assert not text[covered:].strip(), "text at the end is lost"


def test_offsets_count_code_points_and_not_bytes():
    text = "ä" * 500 + " " + "👍" * 500
    pieces = [text[span.start : span.end] for span in split(text, Chunking(100, 0), markdown=False)]
    assert "".join(pieces) == text.replace(" ", "")


def test_neighbours_share_text_within_the_overlap():
    text = " ".join(f"Sentence number {number} says something." for number in range(200))
    spans = split(text, Chunking(400, 100), markdown=False)
    shared = [before.end - after.start for before, after in pairwise(spans)]
    assert all(0 < characters <= 100 for characters in shared)


def test_windows_leave_no_trace():
    """A text far longer than what is split at once still overlaps everywhere."""
    text = " ".join(f"Sentence number {number} says something." for number in range(5_000))
    spans = split(text, Chunking(), markdown=False)
    assert all(after.start < before.end for before, after in pairwise(spans))


def test_a_heading_starts_a_chunk():
    body = "Some words of text that say a thing or two. " * 8
    text = f"# Handbook\n\nintro\n\n## One\n\n{body}\n\n## Two\n\n{body}\n\n## Three\n\n{body}\n"
    starts = {span.start for span in split(text, Chunking(400, 50), markdown=True)}
    assert {text.index(heading) for heading in ("# Handbook", "## Two", "## Three")} <= starts


def test_a_heading_is_never_left_alone():
    text = "# Title\n\n## Section\n\n" + "A long paragraph goes on and on. " * 60
    first = split(text, Chunking(), markdown=True)[0]
    assert text[first.start : first.end].startswith("# Title\n\n## Section\n\nA long paragraph")


def test_tiny_sections_share_a_chunk():
    text = "".join(f"## Term {number}\n\nShort.\n\n" for number in range(200))
    spans = split(text, Chunking(), markdown=True)
    assert len(spans) < 40


def test_a_fenced_block_that_fits_is_kept_whole():
    fence = "```python\n" + "\n\n".join(f"# step {n}\ncall({n})" for n in range(12)) + "\n```"
    text = "## How\n\n" + "Words before the code. " * 25 + f"\n\n{fence}\n\n" + "Words after the code. " * 30
    pieces = [text[span.start : span.end] for span in split(text, Chunking(600, 0), markdown=True)]
    assert any(fence in piece for piece in pieces)


def test_a_hash_inside_a_fence_is_no_heading():
    text = "````\n```\n# not one\n```\n# nor this\n````\n" + "word " * 200
    starts = {text[span.start :][:5] for span in split(text, Chunking(300, 0), markdown=True)}
    assert not any(start.startswith("# n") for start in starts)


def test_a_text_on_which_the_library_panics_is_cut_all_the_same():
    family = "👩\u200d👩\u200d👧"
    text = f"   \n\t\n~~~\n\r\n   \n\t\n{family} é A sentence of some words. And another one!\n\n> quoted\n"
    pieces = [text[span.start : span.end] for span in split(text, Chunking(62, 53), markdown=True)]
    assert pieces[0].startswith("~~~")
    assert pieces[-1].endswith("> quoted")


@pytest.mark.parametrize("markdown", [False, True])
@pytest.mark.parametrize(
    "text",
    [
        "a" * 1_000_000,
        "word " * 200_000,
        "\n" * 1_000_000,
        "x" + "\n" * 300_000 + "y",
        "x\n" * 300_000,
        "# h\n" * 50_000,
        ">" * 100_000 + " deep",
        "\n".join("  " * depth + "- item" for depth in range(1_000)),
        "[" * 200_000,
        "👩\u200d" * 100_000,
        "e" + "\u0301" * 300_000,
        "```\n" * 50_000,
        "|a|b|\n|-|-|\n" + "|x|y|\n" * 50_000,
    ],
    ids=lambda text: repr(text[:6]),
)
@pytest.mark.timeout(60)  # the library alone would need minutes to hours for some of these
def test_hostile_texts_are_cut_in_bounded_time(text, markdown):
    spans = split(text, Chunking(), markdown=markdown)
    assert all(span.end - span.start <= 800 for span in spans)


@pytest.mark.parametrize(
    ("size", "overlap", "loc"),
    [
        (100, 100, "chunk_overlap"),
        (100, 101, "chunk_overlap"),
        (100, -1, "chunk_overlap"),
        (49, 0, "chunk_size"),
        (0, 0, "chunk_size"),
        (-5, 0, "chunk_size"),
        (20_001, 0, "chunk_size"),
    ],
)
def test_impossible_sizes_are_refused_with_their_place_and_value(size, overlap, loc):
    with pytest.raises(InvalidInput) as caught:
        Chunking(size, overlap)
    assert caught.value.loc == ("body", loc)
    assert caught.value.value == (size if loc == "chunk_size" else overlap)
    assert str(caught.value.value) in caught.value.message
