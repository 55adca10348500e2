"""What a STIX bundle becomes: documents, or a reason why it cannot be used."""

from __future__ import annotations

import json
import re

import pytest

from llamabda.sentences import LONGEST, sentences
from scripts.attack_mobile import bundle, documents
from tests.mitre_fakes import SMALL, edge, made, mitigation, read, technique


def test_what_is_revoked_or_deprecated_is_left_out_with_its_edges():
    found = read(SMALL)
    assert list(found.techniques) == ["T0001", "T0001.001", "T0003"]
    assert list(found.mitigations) == ["M0001", "M0002"]
    assert {(one.source, one.target) for one in found.edges} == {
        ("M0001", "T0001"),
        ("M0002", "T0001"),
        ("M0002", "T0001.001"),
        ("T0001.001", "T0001"),
    }
    assert found.problems == ()


def test_a_technique_s_document():
    one = made(SMALL)["T0001"]
    assert one.text == (
        "# T0001 Name of T0001\n\n"
        "The mitigations of T0001 (Name of T0001) are M0001 (Name of M0001) and M0002 (Name of M0002).\n\n"
        "T0001 (Name of T0001) is a technique of ATT&CK Mobile: Says what T0001 is.\n\n"
        "The technique serves the tactic Defense Evasion. It concerns the platforms Android and iOS. "
        "Its sub-techniques are T0001.001 (Name of T0001.001).\n"
    )
    assert one.metadata == {
        "id": "T0001",
        "name": "Name of T0001",
        "type": "technique",
        "tactics": ["Defense Evasion"],
        "platforms": ["Android", "iOS"],
        "is_subtechnique": False,
        "subtechnique_ids": ["T0001.001"],
        "mitigation_ids": ["M0001", "M0002"],
        "url": "https://attack.mitre.org/x/T0001",
        "dataset": "attack-mobile",
        "attack_version": "18.1",
        "copyright": "Copyright of the example",
    }


def test_a_sub_technique_names_its_parent():
    one = made(SMALL)["T0001.001"]
    assert "The only mitigation of T0001.001 (Name of T0001.001) is M0002 (Name of M0002)." in one.text
    assert "T0001.001 (Name of T0001.001) is a sub-technique of T0001 (Name of T0001): Says what" in one.text
    assert (one.metadata["parent_ids"], one.metadata["is_subtechnique"]) == (["T0001"], True)


def test_a_technique_without_mitigations_says_so():
    one = made(SMALL)["T0003"]
    assert "There are no mitigations of T0003 (Name of T0003)." in one.text
    assert "mitigation_ids" not in one.metadata


def test_a_mitigation_s_document():
    one = made(SMALL)["M0002"]
    assert "M0002 (Name of M0002) mitigates 2 techniques: T0001 and T0001.001." in one.text
    assert "M0002 (Name of M0002) is a mitigation of ATT&CK Mobile: Says what M0002 is." in one.text
    assert "- T0001.001 (Name of T0001.001)" in one.text
    assert one.metadata["technique_ids"] == ["T0001", "T0001.001"]


def test_a_relation_s_document_keeps_what_the_edge_says():
    found = made(SMALL)
    said = "M0001 (Name of M0001) mitigates T0001 (Name of T0001): Because of this.\n"
    assert found["T0001-M0001"].text == f"# M0001 mitigates T0001\n\n{said}"
    wanted = {"type": "relation", "relation": "mitigates", "mitigation_id": "M0001", "technique_id": "T0001"}
    assert wanted.items() <= found["T0001-M0001"].metadata.items()
    assert found["T0001-M0002"].text.endswith("mitigates T0001 (Name of T0001).\n")
    wanted = {"relation": "subtechnique-of", "technique_id": "T0001.001", "parent_id": "T0001"}
    assert wanted.items() <= found["T0001.001-T0001"].metadata.items()


@pytest.mark.parametrize(
    ("kinds", "ids"),
    [
        (("techniques",), ["T0001", "T0001.001", "T0003"]),
        (("mitigations",), ["M0001", "M0002"]),
        (("relations",), ["T0001-M0001", "T0001-M0002", "T0001.001-M0002", "T0001.001-T0001"]),
    ],
)
def test_only_the_kinds_that_are_asked_for_are_made(kinds, ids):
    assert list(made(SMALL, kinds)) == ids


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("It hides.(Citation: A 2020)(Citation: B (C) D) Then it runs. (Citation: E)", "It hides. Then it runs."),
        ("See [Keylogging](https://attack.mitre.org/techniques/T1417/001).", "See Keylogging (T1417.001)."),
        ("See [Policy](https://attack.mitre.org/mitigations/M1012)", "See Policy (M1012)"),
        ("See [this](https://example.org/a?b)", "See this (https://example.org/a?b)"),
        ("See [https://example.org](https://example.org)", "See https://example.org"),
        ("Runs <code>su</code> &amp; more,<br/> Find<file(s)>", "Runs su & more, Find<file(s)>"),
        ("One.\r\n \r\n\r\nTwo.\x07 ", "One.\n\nTwo."),
    ],
)
def test_markup_becomes_words(written, shown):
    assert documents.readable(written) == shown


def test_what_is_cited_is_listed():
    references = [
        {"source_name": "A", "url": "https://example.org/a"},
        {"source_name": "B", "url": "https://example.org/b"},
        {"source_name": "C", "url": "javascript:alert(1)"},
        {"source_name": "mitre-attack", "external_id": "T0001"},
    ]
    one = technique("T0001", description="x(Citation: A)(Citation: C)", external_references=references)
    assert made([one])["T0001"].metadata["references"] == ["https://example.org/a"]


def test_a_list_too_long_for_one_sentence_takes_more_and_loses_nothing():
    ids = [f"M{n:04}" for n in range(200)]
    text = made([technique("T0001"), *map(mitigation, ids), *(edge(one, "T0001") for one in ids)])["T0001"].text
    found = [text[span.start : span.end] for span in sentences(text)]
    said = [one for one in found if re.match(r"(The|Further) mitigations of T0001 ", one)]
    assert re.findall(r"M\d{4}(?= \()", " ".join(said)) == ids
    assert len(said) > 1
    assert all(len(one) <= LONGEST for one in said)


# -- bundles with faults


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "b.json is not JSON: Expecting value in line 1, column 1"),
        (b'{"objects": [}', "is not JSON: Expecting value in line 1, column 14"),
        (b"\xff\xfe", "not text in UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"objects": ' + b"9" * 5_000 + b"}", "cannot be read as JSON"),
        (b"[]", "holds a list where an object is expected"),
        (b"{}", '"objects" is missing, not a list'),
        (b'{"objects": {}}', '"objects" is an object, not a list'),
        (b'{"objects": []}', "holds no live technique of ATT&CK Mobile"),
        (json.dumps({"objects": [technique("T1", x_mitre_domains=["ics-attack"])]}).encode(), "no live technique"),
        (json.dumps({"objects": [technique("nonsense")]}).encode(), "like T1406"),
    ],
)
def test_what_is_no_bundle_is_refused_with_the_reason(data, says):
    with pytest.raises(bundle.BundleError, match=re.escape(says)):
        bundle.read(data, name="b.json")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (7, "objects[1]: is a number where an object is expected"),
        ({"id": "x"}, 'objects[1]: "type" is missing, not a text'),
        ({"type": "attack-pattern", "id": None}, 'objects[1]: "id" is missing, not a text'),
        (technique("T9", revoked="no"), '"revoked" is a text, not true or false'),
        (technique("T9", external_references=[]), 'no external reference of "mitre-attack"'),
        (technique("T9", external_references=7), '"external_references" is not a list of objects'),
        (technique("T9"), '"external_id" is T9, not like T1406'),
        (technique("M9000"), "not like T1406"),
        (mitigation("T9000"), "not like M1006"),
        (technique("T9000/../../x"), "not like T1406"),
        (technique("T9000", name=""), 'T9000 has no "name"'),
        (technique("T9000", name=["a"]), '"name" is a list, not a text'),
        (technique("T9000", description={}), '"description" is an object, not a text'),
        (technique("T9000", x_mitre_platforms=[1]), '"x_mitre_platforms" is not a list of texts'),
        (technique("T9000", kill_chain_phases=["x"]), '"kill_chain_phases" is not a list of objects'),
        (technique("T0001", id="attack-pattern--other"), "has the ATT&CK id T0001, which objects[0]"),
        (edge("M0001", "T0001", source_ref=None), '"source_ref" or "target_ref" is not a text'),
        (edge("M0001", "T0001", source_ref="attack-pattern--T0001"), "from T0001 to T0001 makes no sense"),
        (edge("M0001", "T0001", description=1), "its text is left out"),
    ],
)
def test_one_bad_object_is_named_and_skipped(wrong, says):
    found = read([technique("T0001"), wrong, mitigation("M0001"), edge("M0001", "T0001")])
    assert len(found.problems) == 1
    assert says in found.problems[0]
    assert found.problems[0].startswith("objects[1]")
    assert (list(found.techniques), list(found.mitigations)) == (["T0001"], ["M0001"])
    assert [(one.source, one.target) for one in found.edges] == [("M0001", "T0001")]


def test_of_two_versions_of_an_object_the_later_counts():
    old = technique("T0001", name="Old", modified="2020")
    new = technique("T0001", name="New", modified="2021")
    assert [read(pair).techniques["T0001"].name for pair in ([old, new], [new, old])] == ["New", "New"]


def test_two_edges_between_the_same_ends_are_one_with_both_texts():
    edges = [edge("M0001", "T0001", description="One."), edge("M0001", "T0001", description="Two.", x=1)]
    found = made([technique("T0001"), mitigation("M0001"), *edges], ("relations",))
    assert [one.text for one in found.values()] == [
        "# M0001 mitigates T0001\n\nM0001 (Name of M0001) mitigates T0001 (Name of T0001): One.\n\nTwo.\n"
    ]


@pytest.mark.parametrize("url", ["javascript:x", "ftp://a/b", "https://", "https://a b", "http://[", 7, None, "x"])
def test_an_address_that_is_none_is_left_out(url):
    one = technique("T0001")
    one["external_references"][0]["url"] = url
    assert "url" not in made([one])["T0001"].metadata


def test_names_are_one_visible_line():
    one = made([technique("T0001", name="A\nb\x1b[31m \ud800c")])["T0001"]
    assert one.metadata["name"] == "A b[31m c"
    assert one.text.startswith("# T0001 A b[31m c\n")
    json.dumps(one.metadata, ensure_ascii=False).encode()
