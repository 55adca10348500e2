"""scripts/ingest_mitre_mobile.py: the command, the way into a real server, and what that answers then."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from llamabda.chunking import Chunking, split
from llamabda.sentences import sentences
from scripts.attack_mobile import bundle, documents
from scripts.attack_mobile.upload import BATCH
from tests.conftest import ROOT
from tests.http.serving import Server, environment_of, serving
from tests.mitre_fakes import KINDS, SMALL, Told, all_ready, read, technique, telling

SCRIPT = ROOT / "scripts" / "ingest_mitre_mobile.py"
SERVE = "from llamabda_functions.local.app import serve\nserve(port=0)\n"  # with the usual embedder
TOKEN = "a-token-never-shown"


def run(*arguments: str, token: str | None = TOKEN, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), env=environment(token), capture_output=True, text=True, timeout=timeout)


def command(*arguments: str, warnings: str = "error") -> list[str]:
    # isolated: neither this project nor anything installed can be imported
    return [sys.executable, "-S", "-E", "-W", warnings, str(SCRIPT), *arguments]


def environment(token: str | None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "LLAMABDA_TOKEN"}
    return kept | ({"LLAMABDA_TOKEN": token} if token else {})


@pytest.fixture
def small(tmp_path: Path) -> Path:
    file = tmp_path / "small.json"
    file.write_text(json.dumps({"objects": SMALL}))
    return file


@pytest.fixture
def told() -> Iterator[Told]:
    with telling() as server:
        yield server


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
        (["--chunk-overlap", "-1"], "not a whole number"),
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


@dataclass(frozen=True)
class Asked:
    hits: list[str]  # ids of documents, best first
    reply: dict[str, object]


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

    def ask(self, question: str) -> Asked:
        """What the search found and the extractive answer, out of one request."""
        body = {"question": question, "mode": "extractive", "stream": True}
        reply = self.client.post("/ask/question", json=body)
        assert reply.status_code == 200, reply.text
        events = dict(re.findall(r"event: (\w+)\r?\ndata: (.*)", reply.text))
        hits = [hit["doc_id"].removeprefix("attack-mobile/") for hit in json.loads(events["search_results"])["hits"]]
        return Asked(hits, json.loads(events["final_answer"]))

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
        arguments,
        env=environment(token),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # in the background of a shell, where tests may run, Ctrl-C is switched off for all children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
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
        # Ctrl-C may come in the middle of a request, whose socket is then left to the end of the process
        begun = command("--api", server.url, "--file", str(file), warnings="ignore::ResourceWarning")
        stopped = interrupted_after_the_first_batch(begun, token)
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
    for technique_id, wanted in mitigations.items():
        asked = attack_mobile.ask(f"which mitigations for {technique_id}?")
        answer = asked.reply["answer"]
        assert asked.hits[0] == technique_id
        assert (asked.reply["answered"], asked.reply["mode"]) == (True, "extractive")
        assert named_in(answer) == wanted, answer
        assert {one["meta"]["id"] for one in asked.reply["citations"]} == {technique_id}
        name = attack_mobile.found.techniques[technique_id].name
        assert (f"There are no mitigations of {technique_id} ({name})." in answer) == (not wanted)


@pytest.mark.parametrize("question", ["what is {}?", "o que é {}?"])
def test_every_mitigation_is_found_by_its_id(attack_mobile, question):
    for mitigation_id, one in attack_mobile.found.mitigations.items():
        asked = attack_mobile.ask(question.format(mitigation_id))
        assert asked.hits[0] == mitigation_id
        assert f"{mitigation_id} ({one.name}) is a mitigation of ATT&CK Mobile: " in asked.reply["answer"]


@pytest.mark.parametrize("technique_id", ["T1406", "T1629.003", "t1398", "T1430", "T1458", "T1632.001"])
def test_questions_in_portuguese_are_answered_too(attack_mobile, technique_id):
    mitigations, _ = edges_by(attack_mobile.file)
    asked = attack_mobile.ask(f"quais são as mitigações de {technique_id}?")
    assert asked.hits[0] == technique_id.upper()
    assert asked.reply["answered"]
    assert named_in(asked.reply["answer"]) == mitigations[technique_id.upper()]


def test_a_pair_of_ids_finds_what_their_relation_says(attack_mobile):
    asked = attack_mobile.ask("How does M1010 mitigate T1629?")
    assert set(asked.hits) == {"M1010", "T1629", "T1629-M1010"}
    assert "can typically detect if a device has been rooted" in asked.reply["answer"]


def test_an_id_that_is_not_in_att_ck_is_refused(attack_mobile):
    assert not attack_mobile.ask("What is T9999?").reply["answered"]


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
