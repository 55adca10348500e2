"""A STIX bundle that can be read at a glance, and a server that answers as it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from scripts.attack_mobile import bundle, documents

KINDS = tuple(documents.KINDS)


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


@contextmanager
def telling() -> Iterator[Told]:
    """The server, until the block ends."""
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
