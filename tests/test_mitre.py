"""scripts/ingest_mitre_mobile.py: the bundle as documents, the way into a real server, and what that answers then."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path

import httpx
import pytest

from llamabda.chunking import Chunking, split
from llamabda.sentences import LONGEST, sentences
from scripts.attack_mobile import bundle, documents, download
from scripts.attack_mobile.api import ATTEMPTS, Api, ApiError, Rejected, Unauthorized, UsageError
from scripts.attack_mobile.progress import Progress
from scripts.attack_mobile.upload import BATCH, Outcome, Upload
from tests.conftest import ROOT
from tests.http.serving import Server, environment_of, serving

SCRIPT = ROOT / "scripts" / "ingest_mitre_mobile.py"
KINDS = tuple(documents.KINDS)
SERVE = "from llamabda_functions.local.app import serve\nserve(port=0)\n"  # with the usual embedder
TOKEN = "a-token-never-shown"


def run(*arguments: str, token: str | None = TOKEN, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), env=environment(token), capture_output=True, text=True, timeout=timeout)


def command(*arguments: str) -> list[str]:
    # isolated: neither this project nor anything installed can be imported
    return [sys.executable, "-S", "-E", "-W", "error", str(SCRIPT), *arguments]


def environment(token: str | None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "LLAMABDA_TOKEN"}
    return kept | ({"LLAMABDA_TOKEN": token} if token else {})


# -- a bundle that can be read at a glance


def attack(kind: str, attack_id: str, **more: object) -> dict[str, object]:
    return {
        "type": kind,
        "id": f"{kind}--{attack_id}",
        "name": f"Name of {attack_id}",
        "description": f"Says what {attack_id} is.",
        "external_references": [
            {"source_name": "mitre-attack", "external_id": attack_id, "url": f"https://attack.mitre.org/x/{attack_id}"}
        ],
        **more,
    }


def technique(attack_id: str, **more: object) -> dict[str, object]:
    return attack("attack-pattern", attack_id, **more)


def mitigation(attack_id: str, **more: object) -> dict[str, object]:
    return attack("course-of-action", attack_id, **more)


def edge(source: str, target: str, **more: object) -> dict[str, object]:
    kind = "mitigates" if source[0] == "M" else "subtechnique-of"
    types = {"M": "course-of-action", "T": "attack-pattern"}
    return {
        "type": "relationship",
        "id": f"relationship--{source}-{target}-{len(more)}",
        "relationship_type": kind,
        "source_ref": f"{types[source[0]]}--{source}",
        "target_ref": f"{types[target[0]]}--{target}",
        **more,
    }


SMALL = [
    {"type": "x-mitre-collection", "id": "c", "x_mitre_version": "18.1"},
    {"type": "marking-definition", "id": "m", "definition": {"statement": "Copyright of the example"}},
    {"type": "x-mitre-tactic", "id": "t", "name": "Defense Evasion", "x_mitre_shortname": "defense-evasion"},
    technique(
        "T0001",
        kill_chain_phases=[{"kill_chain_name": "mitre-mobile-attack", "phase_name": "defense-evasion"}],
        x_mitre_platforms=["Android", "iOS"],
    ),
    technique("T0001.001"),
    technique("T0002", revoked=True),
    technique("T0003"),
    mitigation("M0001"),
    mitigation("M0002"),
    mitigation("M0003", x_mitre_deprecated=True),
    edge("T0001.001", "T0001"),
    edge("M0001", "T0001", description="Because of this."),
    edge("M0002", "T0001"),
    edge("M0002", "T0001.001"),
    edge("M0003", "T0001"),
    edge("M0001", "T0002"),
    edge("M0001", "T0003", revoked=True),
    edge("M0002", "T0003", x_mitre_deprecated=True),
]


def read(objects: list[object]) -> bundle.Bundle:
    return bundle.read(json.dumps({"type": "bundle", "objects": objects}).encode(), name="b.json")


def made(objects: list[object], kinds: tuple[str, ...] = KINDS) -> dict[str, documents.Document]:
    return {one.id.removeprefix("attack-mobile/"): one for one in documents.of(read(objects), kinds)}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    file = tmp_path / "small.json"
    file.write_text(json.dumps({"objects": SMALL}))
    return file


# -- documents


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


# -- a server that does what it is told to


@dataclass
class Told:
    """One reply after another for each request; the last one again and again."""

    replies: list[tuple[int, Mapping[str, str], object]]
    requests: list[tuple[str, str, Mapping[str, str], object]] = field(default_factory=list)
    url: str = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("Content-Length") or 0)
        body = json.loads(handler.rfile.read(length)) if length else None
        self.requests.append((handler.command, handler.path, dict(handler.headers), body))
        status, headers, reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if callable(reply):
            reply = reply(body)
        data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)


def all_ready(body: Mapping[str, list[Mapping[str, str]]], state: str = "ready") -> object:
    return {"documents": [{"id": one["id"], "state": state, "error": None} for one in body["docs"]]}


@pytest.fixture
def told() -> Iterator[Told]:
    answers = Told([(200, {}, all_ready)])

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            answers.answer(self)

        def do_GET(self) -> None:
            answers.answer(self)

        def do_DELETE(self) -> None:
            answers.answer(self)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    answers.url = f"http://127.0.0.1:{server.server_port}"
    yield answers
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass
class Waits:
    """How long the client would have waited, and what it said."""

    seconds: list[float] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def api(self, url: str) -> Api:
        return Api(url, TOKEN, self.said.append, pause=self.seconds.append)

    def upload(self, url: str) -> Upload:
        return Upload(self.api(url), Progress("documents", 0, out=StringIO()))


SOME = documents.of(read(SMALL), KINDS)


@pytest.mark.parametrize(("status", "after", "waits"), [(429, "7", [7.0]), (503, "1000", [60.0]), (502, None, [1.0])])
def test_a_busy_server_is_waited_for(told, status, after, waits):
    told.replies.insert(0, (status, {"Retry-After": after} if after else {}, {"detail": "busy"}))
    waiting = Waits()
    assert waiting.upload(told.url).send(SOME).ready == [one.id for one in SOME]
    assert waiting.seconds == waits
    assert f"{status} busy" in waiting.said[0]


def test_a_server_that_stays_busy_is_given_up(told):
    told.replies = [(503, {}, {"detail": "busy"})]
    waiting = Waits()
    with pytest.raises(ApiError, match=f"failed {ATTEMPTS} times.*503 busy"):
        waiting.upload(told.url).send(SOME)
    assert waiting.seconds == [2.0**n for n in range(ATTEMPTS - 1)]


def test_a_connection_that_fails_is_tried_again_and_then_given_up():
    waiting = Waits()
    with pytest.raises(ApiError, match=r"failed 6 times.*refused"):
        waiting.upload("http://127.0.0.1:9").send(SOME)
    assert len(waiting.seconds) == ATTEMPTS - 1


def test_too_large_a_request_is_sent_in_parts(told):
    def at_most_two(body: Mapping[str, list[object]]) -> object:
        return all_ready(body)

    told.replies = [(413, {}, {"detail": "large"}), (413, {}, {}), (200, {}, at_most_two)]
    assert Waits().upload(told.url).send(SOME).ready == [one.id for one in SOME]
    sizes = [len(body["docs"]) for _, _, _, body in told.requests]
    assert sizes[:3] == [len(SOME), len(SOME) // 2, len(SOME) // 4]
    assert sum(sizes[2:]) == len(SOME)


def test_a_document_that_is_too_large_alone_fails_and_the_others_go_on(told):
    outcome = Waits().upload(told.url).send([])
    assert outcome == Outcome()
    told.replies = [(413, {}, {"detail": "large"}), (413, {}, {"detail": "large"}), (200, {}, all_ready)]
    outcome = Waits().upload(told.url).send(SOME[:2])
    assert list(outcome.failed) == [SOME[0].id]
    assert outcome.ready == [SOME[1].id]


def test_documents_that_the_server_finds_fault_with_fail_and_the_others_go_on(told):
    fault = {"detail": "wrong", "errors": [{"loc": ["body", "docs", 1, "metadata"], "msg": "is 20000 bytes"}]}
    told.replies = [(422, {}, fault), (200, {}, all_ready)]
    outcome = Waits().upload(told.url).send(SOME)
    assert outcome.failed == {SOME[1].id: "is 20000 bytes"}
    assert outcome.ready == [one.id for one in SOME if one is not SOME[1]]


def test_a_chunking_that_the_server_refuses_is_wrong_usage(told):
    fault = {"detail": "wrong", "errors": [{"loc": ["body", "chunk_size"], "msg": "must be between"}]}
    told.replies = [(422, {}, fault)]
    with pytest.raises(UsageError, match="chunk_size: must be between"):
        Waits().upload(told.url).send(SOME)


def test_any_other_refusal_ends_it(told):
    told.replies = [(404, {}, b"<html>")]
    with pytest.raises(Rejected, match="answered 404"):
        Waits().upload(told.url).send(SOME)


@pytest.mark.parametrize("reply", [b"<html>", b"[]", {"documents": 7}, {"documents": [{"id": "x", "state": "ready"}]}])
def test_a_reply_that_is_not_llamabda_s_ends_it(told, reply):
    told.replies = [(200, {}, reply)]
    with pytest.raises(ApiError, match="is this Llamabda"):
        Waits().upload(told.url).send(SOME)


def test_what_is_queued_is_waited_for_and_told_apart(told):
    one, other, third = (doc.id for doc in SOME[:3])
    queued = {"documents": [{"id": one}, {"id": other}], "next_cursor": None}
    none: dict[str, object] = {"documents": [], "next_cursor": None}
    told.replies = [
        (202, {}, lambda body: all_ready(body, "queued")),
        *[(200, {}, queued), (200, {}, none), (200, {}, {"state": "ready", "error": None})],  # the third is done
        *[(200, {}, none), (200, {}, none)],
        *[(200, {}, {"state": "failed", "error": "no"}), (404, {}, {})],
    ]
    waiting = Waits()
    upload = waiting.upload(told.url)
    outcome = upload.send(SOME[:3])
    assert outcome.queued == [one, other, third]
    upload.wait(outcome, seconds=60)
    assert (outcome.queued, outcome.ready) == ([], [third])
    assert outcome.failed == {one: "no", other: "it was deleted meanwhile"}
    assert len(waiting.seconds) == 1


def test_the_waiting_ends(told):
    told.replies = [(200, {}, {"documents": [{"id": "a"}], "next_cursor": None})]
    waiting = Waits()
    times = iter(range(100))
    upload = Upload(waiting.api(told.url), Progress("documents", 0, out=StringIO()), clock=lambda: next(times))
    outcome = Outcome(queued=["a"])
    upload.wait(outcome, seconds=3)
    assert outcome.queued == ["a"]
    assert len(waiting.seconds) == 2


def test_the_token_is_sent_to_the_api_and_nowhere_else(told):
    told.replies = [(307, {"Location": f"{told.url}/elsewhere"}, {})]
    with pytest.raises(ApiError, match="the token will not be sent"):
        Waits().upload(told.url).send(SOME)
    assert [path for _, path, _, _ in told.requests] == ["/training/train"]
    assert told.requests[0][2]["Authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_is_said_plainly_and_never_shown(told, status):
    told.replies = [(status, {}, {"detail": "no"})]
    with pytest.raises(Unauthorized, match=r"get a new one from POST /auth/login") as refused:
        Waits().upload(told.url).send(SOME)
    assert TOKEN not in str(refused.value)
    assert TOKEN not in repr(Waits().api(told.url))


@pytest.mark.parametrize(
    "address",
    ["", "localhost:8000", "ftp://x", "http://", "http://a b", "http://x?y", "http://u:p@x", "http://x:99999"],
)
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(UsageError, match="--api"):
        Api(address, TOKEN, print)


@pytest.mark.parametrize("token", ["", "two words", "a\r\nX-Evil: 1", "ação"])
def test_a_token_that_is_none_is_refused_and_not_shown(token):
    with pytest.raises(UsageError, match="one word") as refused:
        Api("http://127.0.0.1:8000", token, print)
    assert not token or token not in str(refused.value)


def test_ids_are_quoted_in_addresses(told):
    told.replies = [(204, {}, b"")]
    Waits().api(told.url).delete("attack-mobile/../x?y#z")
    assert told.requests[0][:2] == ("DELETE", "/documents/attack-mobile%2F..%2Fx%3Fy%23z")


def test_only_own_documents_that_are_gone_are_stale(told):
    ours = {"dataset": "attack-mobile"}
    listed = [("attack-mobile/T1", ours), ("attack-mobile/T2", ours), ("attack-mobile/notes", {}), ("other", ours)]
    page = [{"id": doc_id, "metadata": metadata} for doc_id, metadata in listed]
    told.replies = [
        (200, {}, {"documents": page[:1], "next_cursor": "c d"}),
        (200, {}, {"documents": page[1:], "next_cursor": None}),
    ]
    assert Waits().upload(told.url).stale({"attack-mobile/T2"}) == ["attack-mobile/T1"]
    assert told.requests[1][1] == "/documents?limit=200&cursor=c+d"


# -- progress and download


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere():
    terminal, plain = Terminal(), StringIO()
    for out in (terminal, plain):
        progress = Progress("documents", 100, out=out)
        for _ in range(100):
            progress.add(1)
        progress.close()
    assert terminal.getvalue().endswith("\r\x1b[Kdocuments [##############################] 100 of 100\n")
    assert plain.getvalue().splitlines()[0] == "documents: 1 of 100"
    assert plain.getvalue().splitlines()[-1] == "documents: 100 of 100"
    assert len(plain.getvalue().splitlines()) <= 12
    assert "\x1b" not in plain.getvalue()


def test_a_download_is_whole(told):
    told.replies = [(200, {}, b"x" * 200_000)]
    assert download.fetch(told.url, progress=lambda total: Progress("d", total, out=StringIO())) == b"x" * 200_000


def test_a_download_that_fails_says_where_and_why(told):
    with pytest.raises(download.DownloadError, match=r"cannot download http://127\.0\.0\.1:9: .*refused"):
        download.fetch("http://127.0.0.1:9")
    told.replies = [(302, {"Location": told.url}, {})]
    with pytest.raises(download.DownloadError, match="not https"):
        download.fetch(told.url)


# -- the command


def test_help_says_it_all():
    shown = run("--help").stdout
    for option in ("--api", "--token", "--include", "--limit", "--chunk-size", "--chunk-overlap", "--file", "--prune"):
        assert option in shown
    assert "LLAMABDA_TOKEN" in shown


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--include", "techniques,nonsense"], "choose from techniques,mitigations,relations"),
        (["--include", ","], "choose from"),
        (["--limit", "0"], "not a whole number above 0"),
        (["--chunk-overlap", "-1"], "expected one argument"),
        (["--api", "example.org"], "--api takes an address like"),
        (["--file", "/does/not/exist"], "cannot read /does/not/exist"),
    ],
)
def test_wrong_usage_is_said(arguments, says):
    done = run(*arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_token_it_says_how_to_get_one(small):
    done = run("--file", str(small), token=None)
    assert done.returncode == 2
    assert "LLAMABDA_TOKEN" in done.stderr


def test_the_outcome_is_told_on_the_standard_output(told, small):
    done = run("--api", told.url, "--file", str(small), "--limit", "5", "--include", "mitigations,techniques")
    assert (done.returncode, done.stdout) == (0, "5 documents: 5 new or changed, 0 unchanged\n")
    assert "documents: 5 of 5" in done.stderr
    ((_, path, _, body),) = told.requests
    assert path == "/training/train"
    assert list(body) == ["docs"]
    assert [doc["id"] for doc in body["docs"]] == [one.id for one in documents.of(read(SMALL), KINDS[:2])]


def test_chunking_is_passed_on_and_a_size_that_cuts_the_lists_is_warned_of(told, small):
    done = run("--api", told.url, "--file", str(small), "--chunk-size", "100", "--chunk-overlap", "10")
    assert done.returncode == 0
    assert {name: told.requests[0][3][name] for name in ("chunk_size", "chunk_overlap")} == {
        "chunk_size": 100,
        "chunk_overlap": 10,
    }
    assert "warning: chunks of 100 characters cut the list of mitigations or techniques in 2 documents" in done.stderr


@pytest.mark.parametrize(
    ("reply", "code", "says"),
    [
        ((401, {}, {}), 4, "refused the token"),
        ((404, {}, {}), 5, "answered 404"),
        ((200, {}, lambda body: all_ready(body, "failed")), 1, "9 failed"),
    ],
)
def test_exit_codes(told, small, reply, code, says):
    told.replies = [reply]
    done = run("--api", told.url, "--file", str(small))
    assert done.returncode == code
    assert says in done.stderr + done.stdout
    assert TOKEN not in done.stderr + done.stdout


def test_what_is_skipped_is_told_and_nothing_is_pruned_then(told, tmp_path):
    file = tmp_path / "b.json"
    file.write_text(json.dumps({"objects": [*SMALL, technique("T9")]}))
    done = run("--api", told.url, "--file", str(file))
    assert done.returncode == 1
    assert 'skipped: objects[18] (attack-pattern--T9): "external_id" is T9' in done.stderr
    done = run("--api", told.url, "--file", str(file), "--prune")
    assert done.returncode == 2
    assert len(told.requests) == 1


# -- the whole of ATT&CK Mobile in a real server


@dataclass
class Attack:
    """A server that holds everything, and what the bundle itself says."""

    server: Server
    file: Path
    token: str
    client: httpx.Client
    found: bundle.Bundle
    interrupted: subprocess.CompletedProcess[str]
    first: subprocess.CompletedProcess[str]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run("--api", self.server.url, "--file", str(self.file), *arguments, token=self.token)

    def ask(self, question: str) -> dict[str, object]:
        return self._post("/ask/question", {"question": question, "mode": "extractive"})

    def hits(self, question: str) -> list[str]:
        return [
            hit["doc_id"].removeprefix("attack-mobile/") for hit in self._post("/search", {"query": question})["hits"]
        ]

    def _post(self, path: str, body: object) -> dict[str, object]:
        reply = self.client.post(path, json=body)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def documents(self) -> dict[str, dict[str, object]]:
        found: dict[str, dict[str, object]] = {}
        cursor = None
        while True:
            page = self.client.get("/documents", params={"limit": 200} | ({"cursor": cursor} if cursor else {})).json()
            found |= {one["id"]: one for one in page["documents"]}
            cursor = page["next_cursor"]
            if cursor is None:
                return found


def interrupted_after_the_first_batch(arguments: list[str], token: str) -> subprocess.CompletedProcess[str]:
    """Stops the command as Ctrl-C does, once it has said that something is done."""
    running = subprocess.Popen(
        arguments, env=environment(token), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert running.stderr is not None
    first = running.stderr.readline()
    running.send_signal(signal.SIGINT)
    out, errors = running.communicate(timeout=60)
    return subprocess.CompletedProcess(arguments, running.returncode, out, first + errors)


@pytest.fixture(scope="module")
def attack_mobile(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Iterator[Attack]:
    """Ingested as somebody does who interrupts it once."""
    file = data_dir / "mitre-mobile" / "mobile-attack.bundle.json"
    home = tmp_path_factory.mktemp("attack")
    unlimited = {"RATE_LIMIT_USER": "0", "RATE_LIMIT_ADDRESS": "0"}
    with (
        serving(home, environment_of(home, home / "key.pem", **unlimited), SERVE) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        credentials = {"username": "alice", "password": "secret123"}
        assert client.post("/auth/register", json=credentials).status_code == 201
        token = client.post("/auth/login", json=credentials).json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        stopped = interrupted_after_the_first_batch(command("--api", server.url, "--file", str(file)), token)
        first = run("--api", server.url, "--file", str(file), token=token)
        found = bundle.read(file.read_bytes(), name=str(file))
        yield Attack(server, file, token, client, found, stopped, first)


def edges_by(file: Path) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """Mitigations by technique and parents by sub-technique, read a second time and in another way."""
    objects = json.loads(file.read_text())["objects"]
    live = {
        one["id"]: next(
            ref["external_id"] for ref in one["external_references"] if ref["source_name"] == "mitre-attack"
        )
        for one in objects
        if one["type"] in ("attack-pattern", "course-of-action")
        and not (one.get("revoked") or one.get("x_mitre_deprecated"))
    }
    mitigations: dict[str, set[str]] = {one: set() for one in live.values() if one[0] == "T"}
    parents: dict[str, set[str]] = defaultdict(set)
    for one in objects:
        ends = live.get(one.get("source_ref")), live.get(one.get("target_ref"))
        if one.get("revoked") or one.get("x_mitre_deprecated") or None in ends:
            continue
        if one["relationship_type"] == "mitigates":
            mitigations[ends[1]].add(ends[0])
        elif one["relationship_type"] == "subtechnique-of":
            parents[ends[0]].add(ends[1])
    return mitigations, parents


def named_in(answer: object) -> set[str]:
    return set(re.findall(r"\bM\d{4}\b", str(answer)))


def test_an_interruption_is_answered_at_once_and_the_next_run_goes_on(attack_mobile):
    assert attack_mobile.interrupted.returncode == 130
    assert attack_mobile.interrupted.stderr.startswith(f"documents: {BATCH} of 351")
    assert "run the same command again" in attack_mobile.interrupted.stderr
    assert "Traceback" not in attack_mobile.interrupted.stderr
    assert attack_mobile.first.returncode == 0, attack_mobile.first.stderr
    made, unchanged = map(int, re.findall(r"(\d+) (?:new|unch)", attack_mobile.first.stdout))
    assert made + unchanged == 351
    assert unchanged >= BATCH


def test_no_document_and_no_edge_is_lost_or_invented(attack_mobile):
    stored = attack_mobile.documents()
    assert {one["state"] for one in stored.values()} == {"ready"}
    mitigations, parents = edges_by(attack_mobile.file)
    assert (len(mitigations), sum(map(len, mitigations.values())), len(parents)) == (124, 167, 47)
    kinds = defaultdict(list)
    for one in stored.values():
        kinds[one["metadata"]["type"]].append(one["metadata"])
    assert {meta["id"]: set(meta.get("mitigation_ids", [])) for meta in kinds["technique"]} == mitigations
    assert {meta["id"]: set(meta["parent_ids"]) for meta in kinds["technique"] if "parent_ids" in meta} == parents
    pairs = {(meta["id"], technique) for meta in kinds["mitigation"] for technique in meta["technique_ids"]}
    wanted = {(one, technique) for technique, ones in mitigations.items() for one in ones}
    assert pairs == wanted
    relations = kinds["relation"]
    assert {(m["mitigation_id"], m["technique_id"]) for m in relations if m["relation"] == "mitigates"} == wanted
    assert {m["technique_id"]: {m["parent_id"]} for m in relations if m["relation"] == "subtechnique-of"} == parents
    assert len(stored) == 124 + 13 + 167 + 47


def test_every_edge_s_own_text_is_kept(attack_mobile):
    edges = [one for one in attack_mobile.found.edges if one.kind == "mitigates"]
    texts = {one.id: one.text for one in documents.of(attack_mobile.found, ("relations",))}
    assert all(one.description.strip() for one in edges)
    for one in edges:
        assert documents.readable(one.description) in texts[f"attack-mobile/{one.target}-{one.source}"]


def test_no_list_is_cut_by_the_usual_chunks(attack_mobile):
    for one in documents.of(attack_mobile.found, ("techniques", "mitigations")):
        complete = one.text.split("\n\n")[1]
        first = split(one.text, Chunking(), markdown=True)[0]
        assert complete in one.text[first.start : first.end]
        assert complete in [one.text[span.start : span.end] for span in sentences(one.text)]


def test_every_technique_s_mitigations_are_answered_whole(attack_mobile):
    mitigations, _ = edges_by(attack_mobile.file)
    for technique, wanted in mitigations.items():
        question = f"which mitigations for {technique}?"
        assert attack_mobile.hits(question)[0] == technique
        reply = attack_mobile.ask(question)
        assert (reply["answered"], reply["mode"]) == (True, "extractive")
        assert named_in(reply["answer"]) == wanted, reply["answer"]
        assert {one["meta"]["id"] for one in reply["citations"]} == {technique}
        name = attack_mobile.found.techniques[technique].name
        assert (f"There are no mitigations of {technique} ({name})." in reply["answer"]) == (not wanted)


@pytest.mark.parametrize("question", ["what is {}?", "o que é {}?"])
def test_every_mitigation_is_found_by_its_id(attack_mobile, question):
    for mitigation_id, one in attack_mobile.found.mitigations.items():
        assert attack_mobile.hits(question.format(mitigation_id))[0] == mitigation_id
        assert f"{mitigation_id} ({one.name}) " in attack_mobile.ask(question.format(mitigation_id))["answer"]


@pytest.mark.parametrize("technique", ["T1406", "T1629.003", "t1398", "T1430", "T1458", "T1632.001"])
def test_questions_in_portuguese_are_answered_too(attack_mobile, technique):
    mitigations, _ = edges_by(attack_mobile.file)
    question = f"quais são as mitigações de {technique}?"
    assert attack_mobile.hits(question)[0] == technique.upper()
    reply = attack_mobile.ask(question)
    assert reply["answered"]
    assert named_in(reply["answer"]) == mitigations[technique.upper()]


def test_a_pair_of_ids_finds_what_their_relation_says(attack_mobile):
    question = "How does M1010 mitigate T1629?"
    assert set(attack_mobile.hits(question)[:3]) == {"M1010", "T1629", "T1629-M1010"}
    assert "can typically detect if a device has been rooted" in attack_mobile.ask(question)["answer"]


def test_an_id_that_is_not_in_att_ck_is_refused(attack_mobile):
    assert not attack_mobile.ask("What is T9999?")["answered"]


def test_a_second_run_changes_nothing(attack_mobile):
    before = attack_mobile.documents()
    done = attack_mobile.run()
    assert (done.returncode, done.stdout) == (0, "351 documents: 0 new or changed, 351 unchanged\n")
    after = attack_mobile.documents()
    assert {key: one["generation"] for key, one in after.items()} == {
        key: one["generation"] for key, one in before.items()
    }


def test_pruning_takes_what_the_bundle_no_longer_has_and_nothing_else(attack_mobile):
    docs = [
        {"id": "attack-mobile/T0666", "text": "Revoked since.", "metadata": {"dataset": "attack-mobile"}},
        {"id": "attack-mobile/my-notes", "text": "Notes of one's own."},
    ]
    assert attack_mobile.client.post("/training/train", json={"docs": docs}).status_code == 200
    assert attack_mobile.run("--limit", "1").stdout.endswith("1 unchanged\n")
    assert "attack-mobile/T0666" in attack_mobile.documents()
    done = attack_mobile.run("--limit", "1", "--prune")
    assert done.stdout == "1 documents: 0 new or changed, 1 unchanged, 1 deleted that the bundle no longer has\n"
    left = attack_mobile.documents()
    assert "attack-mobile/T0666" not in left
    assert len(left) == 351 + 1
