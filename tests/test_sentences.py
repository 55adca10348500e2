from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamabda import sentences as module
from llamabda.sentences import LONGEST, OPENING, opening, sentences


def split(text: str) -> list[str]:
    return [text[span.start : span.end] for span in sentences(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \n\n\t", []),
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("Dr. Smith met Mrs. Jones. They left.", ["Dr. Smith met Mrs. Jones.", "They left."]),
        ("See fig. 3 and no. 5 on p. 12. Next.", ["See fig. 3 and no. 5 on p. 12.", "Next."]),
        ("She said no. Then she left.", ["She said no.", "Then she left."]),
        ("It costs 3.50 or 1.000,50 each. Yes.", ["It costs 3.50 or 1.000,50 each.", "Yes."]),
        ("J. R. R. Tolkien wrote it. Good.", ["J. R. R. Tolkien wrote it.", "Good."]),
        ("He lives in the U.S. The end.", ["He lives in the U.S.", "The end."]),
        ("The U.S. Senate voted.", ["The U.S. Senate voted."]),
        ('"Stop." He stopped. “Go!” She went.', ['"Stop."', "He stopped.", "“Go!”", "She went."]),
        ("Well... maybe. Then he left... Never again.", ["Well... maybe.", "Then he left...", "Never again."]),
        ("O Sr. João (art. 5º, inc. II) pagou. Fim.", ["O Sr. João (art. 5º, inc. II) pagou.", "Fim."]),
        ("A reunião é às 10h. É às 11h? Não.", ["A reunião é às 10h.", "É às 11h?", "Não."]),
        ("Nasceu em 12 de out. 1950 em Lisboa. Morreu lá.", ["Nasceu em 12 de out. 1950 em Lisboa.", "Morreu lá."]),
        ("# Title\nThe text. More", ["# Title", "The text.", "More"]),
        ("A wrapped line that goes on and on for a while\nand ends here. Next.", None),
        ("- one\n- two\n3. three", ["- one", "- two", "3. three"]),
        ("First paragraph\n\nsecond paragraph", ["First paragraph", "second paragraph"]),
        ("これは文です。次の文です。", ["これは文です。", "次の文です。"]),
        ("It was known.[12] Later it was not.", ["It was known.[12]", "Later it was not."]),
    ],
)
def test_text_is_cut_where_a_reader_would(text: str, expected: list[str] | None) -> None:
    if expected is None:
        expected = ["A wrapped line that goes on and on for a while\nand ends here.", "Next."]
    assert split(text) == expected


def test_a_sentence_without_end_is_cut_at_a_pause() -> None:
    pieces = split("word, " * 1000)
    assert all(len(piece) <= LONGEST for piece in pieces)
    assert all(piece.endswith(",") for piece in pieces)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# Title\n\nThe text.", "# Title"),
        ("\n  First one. Second one.", "First one."),
        (" \n", ""),
        ("x" * 1000, "x" * OPENING),
    ],
)
def test_a_document_opens_with_its_first_sentence(text: str, expected: str) -> None:
    assert opening(text) == expected


@given(st.text(alphabet=st.sampled_from("aB1.!? \n\"'()-#。é,;"), max_size=400) | st.text(max_size=200))
def test_spans_are_in_order_and_lose_nothing_but_white_space(text: str) -> None:
    spans = sentences(text)
    at = 0
    for span in spans:
        assert not text[at : span.start].strip()
        assert at <= span.start < span.end
        assert text[span.start : span.end].strip() == text[span.start : span.end]
        assert span.end - span.start <= LONGEST
        at = span.end
    assert not text[at:].strip()


@pytest.mark.timeout(60)  # what takes the square of the length takes most of an hour
@pytest.mark.parametrize("run", [".", "…", "?!", ". "])
def test_a_long_run_of_stops_is_read_once(run: str) -> None:
    assert sentences("The tide " + run * 200_000 + "x is high.")


@given(st.text(alphabet=st.sampled_from("aB1.!?… \n\"')][*_。"), max_size=40))
def test_stops_are_those_that_every_place_would_be_tried_for(text: str) -> None:
    everywhere = re.compile(module._STOP.pattern.replace("(?<![.!?…])", ""))
    assert everywhere.pattern != module._STOP.pattern
    for start in {0, *(i + 1 for i, c in enumerate(text) if c == "\n")}:
        found = [match.span() for match in module._STOP.finditer(text, start)]
        assert found == [match.span() for match in everywhere.finditer(text, start)]
