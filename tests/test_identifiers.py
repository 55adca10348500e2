"""What counts as an id, in a question and in a document."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamabda import filters, identifiers
from llamabda.identifiers import MAX_CHARS, MAX_IDS, identity, is_id_key, mentioned, terms


@pytest.mark.parametrize(
    ("question", "ids"),
    [
        ("which mitigations for T1406?", ("t1406",)),
        ("o que é M1006, e T1406.001?", ("m1006", "t1406.001")),
        ("Is (CVE-2024-1234) fixed in v1.2.3.", ("cve-2024-1234", "v1.2.3")),
        ("CVE\u20112024\u20111234 or A320\u2013200", ("cve-2024-1234", "a320-200", "a320")),  # typeset hyphen and dash
        ("T1406\u2014which mitigations?", ("t1406",)),
        ("T1406\u2015T1410", ("t1406", "t1410")),
        ("T1406\ufe58T1410", ("t1406", "t1410")),  # a small long dash
        ("T1406\u2013T1410", ("t1406-t1410", "t1406", "t1410")),
        ("T1406\u2013which?", ("t1406-which", "t1406")),
        ("T1406-related", ("t1406-related", "t1406")),
        ("técnica-T1406", ("tecnica-t1406", "t1406")),
        ("What is T1406.Is it bad", ("t1406.is", "t1406")),
        ("INC-42.pdf", ("inc-42.pdf", "inc-42")),
        ("A1/B2-like.C3", ("a1/b2-like.c3", "a1", "b2-like.c3", "b2-like", "b2", "c3")),
        ("INC-42's owner", ("inc-42",)),
        ("order_7b", ("order_7b",)),
        ("T1406/T1407", ("t1406/t1407", "t1406", "t1407")),
        ("see https://example.org/techniques/T1406", ("example.org/techniques/t1406", "t1406")),
        ("t1406 T1406 Ｔ１４０６", ("t1406",)),
        ("ISO 27001 of 2022-11-23, 3.14, 7/8", ()),
        ("What is the harbour's well-known name?", ()),
        ("...---___", ()),
        ("", ()),
        ("x1" * MAX_CHARS, ()),
    ],
)
def test_ids_are_words_of_letters_and_digits(question, ids):
    assert mentioned(question) == ids


def test_of_many_ids_the_first_count():
    assert mentioned(" ".join(f"x{n}" for n in range(50))) == tuple(f"x{n}" for n in range(MAX_IDS))


NAMED = tuple(f"t{n}" for n in range(MAX_IDS))


@pytest.mark.parametrize("joint", ["/", "\u2013"])
def test_a_list_takes_no_place_of_what_is_listed(joint):
    assert mentioned(joint.join(NAMED)) == NAMED
    assert mentioned(f"{' '.join(NAMED[:-2])} {joint.join(NAMED[-2:])}") == NAMED


def test_parts_take_no_place_of_whole_words():
    unique = "550e8400-e29b-41d4-a716-446655440000"
    others = NAMED[:-1]
    assert mentioned(f"{unique} {' '.join(others)}") == (unique, *others)


ID = st.from_regex(r"[A-Za-zçßİ]{1,5}([-._/]?[0-9]{1,4}){1,3}", fullmatch=True)


@given(ID, st.sampled_from(["{}", "What is {}?", "({}),", "«{}».", "o que é\t{}...", "{}'s"]))
def test_a_document_s_own_id_is_found_in_a_question_in_any_case(identifier, frame):
    asked = {
        one for shown in (identifier, identifier.lower(), identifier.upper()) for one in mentioned(frame.format(shown))
    }
    own = identity("d", {"id": identifier}).own
    assert own
    assert own <= asked


@given(st.text(), st.dictionaries(st.text(max_size=8), st.recursive(st.none() | st.integers() | st.text(), st.lists)))
def test_any_text_and_any_metadata_can_be_read(text, metadata):
    for one in mentioned(text):
        assert mentioned(one)[0] == one
    found = identity(text, metadata)
    assert not found.own & found.others
    assert not terms(text, metadata) & filters.terms(metadata)


@pytest.mark.parametrize(
    "key",
    [
        "id",
        "ids",
        "ID",
        "parent_id",
        "technique_ids",
        "case-id",
        "case.id",
        "case id",
        "customerId",
        "orderIDs",
        "x2Id",
    ],
)
def test_keys_that_end_in_the_word_id_hold_ids(key):
    assert is_id_key(key)


@pytest.mark.parametrize("key", ["", "name", "paid", "kids", "idea", "id_type", "hybrid", "Madrid", "ids_of", "valid"])
def test_other_keys_hold_none(key):
    assert not is_id_key(key)


@pytest.mark.parametrize(
    ("doc_id", "own"),
    [
        ("T1406", {"t1406"}),
        ("attack-mobile/T1406.001", {"attack-mobile/t1406.001", "t1406.001"}),
        ("s3:reports/2026/INC-42.pdf", {"inc-42.pdf", "inc-42"}),
        ("C:\\files\\a7.md", {"a7.md", "a7"}),
        ("notes/harbour", set()),
        ("2026", set()),
    ],
)
def test_a_document_is_known_by_its_id_and_its_name(doc_id, own):
    assert identity(doc_id, {}).own == own


def test_metadata_tells_the_own_id_from_those_referred_to():
    metadata = {
        "id": "T1406",
        "mitigation_ids": ["M1001", "M1006", "T1406", 7, None, ["M1"]],
        "parentId": "#INC-42",
        "external_id": 1234,
        "ids": ["x1", "plain", "12"],
        "title": "T9999",
        "nested": {"id": "T8888"},
    }
    found = identity("doc", metadata)
    assert found.own == {"t1406"}
    assert found.others == {"m1001", "m1006", "inc-42", "x1"}


def test_an_id_has_a_term_as_itself_and_one_as_a_reference():
    assert terms("doc", {"id": "A1", "b_id": "B2"}) == {
        identifiers.own("a1").term,
        identifiers.known("a1").term,
        identifiers.known("b2").term,
    }
