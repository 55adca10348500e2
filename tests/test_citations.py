from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamabda import citations
from llamabda.citations import SETTLES_AFTER, Growing, Part, assemble, parse, plain
from llamabda.types import Hit
from tests.ask_fakes import chunk

HITS = tuple(Hit(chunk(f"d{i}", f"passage {i}"), 1 - i / 10) for i in range(4))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Paris is big [1].", [("Paris is big.", (1,))]),
        ("Paris is big. [1] Rome is old. [2]", [("Paris is big.", (1,)), ("Rome is old.", (2,))]),
        ("[1] Paris is big. [2] Rome is old.", [("Paris is big.", (1,)), ("Rome is old.", (2,))]),
        ("Paris is big [1, 2].", [("Paris is big.", (1, 2))]),
        ("Paris is big [1][3].", [("Paris is big.", (1, 3))]),
        ("Paris is big [1-3].", [("Paris is big.", (1, 2, 3))]),
        ("Paris is big [3; 1 and 2].", [("Paris is big.", (3, 1, 2))]),
        ("Paris is big [^2].", [("Paris is big.", (2,))]),
        ("Paris is big 【2†source】.", [("Paris is big.", (2,))]),
        ("Paris is big [9].", [("Paris is big.", ())]),
        ("Paris is big [0] [1-999999999].", [("Paris is big.", (1, 2, 3, 4))]),
        ("Paris [sic] is big.", [("Paris [sic] is big.", ())]),
        ("", []),
        ("[1]", []),
    ],
)
def test_markers_are_read_and_taken_out(text: str, expected: list[tuple[str, tuple[int, ...]]]) -> None:
    assert [(s.text, s.cited) for s in parse(text, 4)] == expected


def test_a_number_is_the_place_of_the_hit_and_citations_stand_in_their_order() -> None:
    answer, cited = assemble([Part("C.", (2,)), Part("A.", (0, 2)), Part("B.", (1,))], HITS)
    assert answer == "C. [3] A. [1][3] B. [2]"
    assert [(c.n, c.hit.chunk.doc_id) for c in cited] == [(1, "d0"), (2, "d1"), (3, "d2")]


def test_a_sentence_without_support_is_left_out() -> None:
    assert assemble([Part("Invented.", ())], HITS) == ("", ())


def test_a_source_s_own_references_do_not_look_like_citations() -> None:
    answer, cited = assemble([Part("Known since[12] long ago [1998].", (3,))], HITS)
    assert answer == "Known since long ago (1998). [4]"
    assert [c.n for c in cited] == [4]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see ![x](https://evil.example/p.png?q=1) here", "see x here"),
        ("a [link](javascript:alert(1)) b", "a link b"),
        ("[![logo](http://a/b.png)](http://c)", "logo"),
        ("<img src=x onerror=alert(1)>hi", "hi"),
        ("<scr<b>ipt>alert(1)</scr</b>ipt>", "alert(1)"),
        ("<!-- hidden --> shown", "shown"),
        ("broken <img src=x", "broken < img src=x"),
        ("<https://evil.example>", "https://evil.example"),
        ("2 < 3 and 4 > 1", "2 < 3 and 4 > 1"),
        ("# Heading", "Heading"),
        ("- item\n  two lines", "item two lines"),
        ("2) second item", "second item"),
        ("zero\u200bwidth \u202ereversed", "zerowidth reversed"),
        ("[ref]: http://evil.example", "[ref] : http://evil.example"),
    ],
)
def test_answers_are_plain_text(text: str, expected: str) -> None:
    assert plain(text) == expected


pieces = st.sampled_from(
    [
        "<",
        ">",
        "[",
        "]",
        "(",
        ")",
        "!",
        "img src=x",
        "http://e/x",
        "[1]",
        "a",
        " ",
        "\n",
        ":",
        "b>",
        "/",
        "--",
        "\u202e",
        ".",
    ]
)


@given(st.lists(pieces, max_size=30).map("".join))
def test_plain_text_holds_no_live_markup(text: str) -> None:
    shown = plain(text)
    assert not re.search(r"<[a-zA-Z/!?]|!\[|\]\(|\]\[|\]:|\n", shown)
    assert plain(shown) == shown


@given(
    st.lists(
        st.tuples(st.text("ab [1].2", max_size=20), st.lists(st.integers(0, 3), max_size=4, unique=True)), max_size=6
    )
)
def test_every_number_in_an_answer_is_a_citation_and_every_citation_is_there(
    parts: list[tuple[str, list[int]]],
) -> None:
    answer, cited = assemble([Part(text, tuple(places)) for text, places in parts], HITS)
    numbers = {int(n) for n in re.findall(r"\[(\d+)\]", answer)}
    assert sorted(numbers) == [c.n for c in cited]
    assert all(HITS[c.n - 1] is c.hit for c in cited)
    assert bool(answer) == bool(cited)


@given(st.text("ab. [12],-3]9\n", max_size=80), st.integers(0, 4))
def test_parsing_never_names_a_passage_that_is_not_there(text: str, count: int) -> None:
    for statement in parse(text, count):
        assert all(1 <= n <= count for n in statement.cited)
        assert statement.text


@pytest.mark.timeout(60)  # what takes the square of the length takes most of an hour
def test_a_long_run_of_blanks_is_read_once() -> None:
    assert parse("The tide" + " " * 400_000 + "is high.", 3)
    assert plain("The tide" + " " * 400_000 + "is high.") == "The tide is high."


@given(st.text("a [12],-3]【】 \n\t", max_size=40))
def test_markers_are_those_that_every_place_would_be_tried_for(text: str) -> None:
    everywhere = re.compile(citations._MARKER.pattern.replace(r"(?<!\s)", ""))
    assert everywhere.pattern != citations._MARKER.pattern
    found = [match.span() for match in citations._MARKER.finditer(text)]
    assert found == [match.span() for match in everywhere.finditer(text)]


words = st.sampled_from(
    ["The", "tide", "is", "high.", "U.S.", "no.", "5", "a.", "It...", "(so?)", "[1]", "[2,", "3].", "[9", "]", "【1】",
     "【2", "†x】", "\n", "\n\n", "\n- ", "\n1. ", "# Head", '"Stop."', "!", "。", "Then", "the harbour office opens",
     "   "]
)  # fmt: skip


@given(st.lists(words, min_size=20, max_size=80).map(" ".join) | st.lists(words, max_size=120).map("".join), st.data())
@settings(max_examples=60, deadline=None)
def test_a_text_that_grows_is_read_as_if_it_was_read_anew(text: str, data: st.DataObject) -> None:
    growing, done = Growing(3), 0
    lag = data.draw(st.integers(1, 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(citations, "SETTLES_AFTER", 0)
        for end in range(0, len(text) + 3, 3):
            found = growing.statements(text[:end], done)
            assert growing.settled <= done
            assert found == parse(text[:end], 3)[growing.settled :]
            done = max(done, growing.settled + len(found) - lag)


def test_of_a_text_that_grows_little_is_read_anew() -> None:
    text = "".join(f"The tide number {n} is high [1]. " for n in range(200))
    growing, done = Growing(3), 0
    longest = 0
    for end in range(0, len(text), 7):
        found = growing.statements(text[:end], done)
        longest = max(longest, sum(len(statement.text) for statement in found))
        done = max(done, growing.settled + len(found) - 1)
    assert growing.settled + len(found) == 200
    assert longest < 2 * SETTLES_AFTER
