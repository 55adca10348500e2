"""`llamabda reindex` beside a running server: questions are answered all the time, documents come and go."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import httpx

from tests.http.serving import environment_of, serving
from tests.http.test_under_way import NO_LIMITS, logged_in, until

# two models: the second one puts a word's count into another place
MODELS = """
import time
from llamabda import wiring
from tests.fakes import WordEmbedder
class Other(WordEmbedder):
    fingerprint = "other-256"
    def place(self, word):
        return (super().place(word) + 97) % self.dim
    def embed_documents(self, texts):
        time.sleep(0.02)  # so that questions come while it works
        return super().embed_documents(texts)
wiring.load_embedder = lambda model: Other() if model.name == "other" else WordEmbedder()
wiring.prepare_embedder = lambda *_args, **_more: None
"""
OWN_SERVE = MODELS + "from llamabda_functions.local.app import serve\nserve(port=0)\n"
REINDEX = MODELS + "import sys\nfrom llamabda.cli import main\nsys.exit(main(['reindex', '--json']))\n"
DOCUMENTS = 120


def text_of(name: str) -> str:
    return f"The keeper of {name} is called Warden{name} and lives at number {name} of the Long Street."


def test_no_question_goes_unanswered_while_the_model_changes(tmp_path, index_settings):
    environment = environment_of(tmp_path, tmp_path / "key.pem", **NO_LIMITS, **index_settings)
    with serving(tmp_path, environment, OWN_SERVE) as server, logged_in(server.url) as client:
        names = [f"tower{n}" for n in range(DOCUMENTS)]
        docs = [{"id": name, "text": text_of(name)} for name in names]
        assert client.post("/training/train", json={"docs": docs}).status_code == 200
        stop, answered, wrong = threading.Event(), [], []

        def ask() -> None:
            with httpx.Client(base_url=server.url, headers=client.headers, timeout=60, trust_env=False) as reader:
                turn = 0
                while not stop.is_set():
                    name = names[turn % len(names)]
                    turn += 7
                    reply = reader.post("/search", json={"query": f"Who is the keeper of {name}?", "top_k": 1})
                    found = [hit["doc_id"] for hit in reply.json().get("hits", [])]
                    (answered if found == [name] else wrong).append((reply.status_code, name, found))
                    time.sleep(0.01)  # the pace of the reader

        reader = threading.Thread(target=ask)
        reader.start()
        try:
            other = subprocess.Popen(
                [sys.executable, "-c", REINDEX],
                cwd=tmp_path,
                env=environment | {"EMBED_MODEL_NAME": "other"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            late = [f"hut{n}" for n in range(20)]
            for name in late:  # trained by the former model, or, once it has changed, by the new one
                reply = client.post("/training/train", json={"docs": [{"id": name, "text": text_of(name)}]})
                assert reply.status_code in (200, 202), reply.text
            out, err = other.communicate(timeout=120)
            assert other.returncode == 0, err
            assert '"adopted": true' in out
            client.post("/search", json={"query": "anything"})
            assert until(lambda: any("embedding model is now other" in line for line in server.lines), 60)
            before = len(answered)
            assert until(lambda: len(answered) > before + 30 or bool(wrong), 60)
        finally:
            stop.set()
            reader.join()
        assert wrong == []

        def counts() -> dict[str, int]:
            return client.get("/documents").json()["counts"]

        assert until(lambda: counts() == {"ready": DOCUMENTS + len(late)}, 90), counts()
        for name in late:
            reply = client.post("/search", json={"query": f"Who is the keeper of {name}?", "top_k": 1})
            assert [hit["doc_id"] for hit in reply.json()["hits"]] == [name]


def test_a_server_started_with_another_model_answers_with_the_documents_own(tmp_path, index_settings):
    environment = environment_of(tmp_path, tmp_path / "key.pem", **NO_LIMITS, **index_settings)
    with serving(tmp_path, environment, OWN_SERVE) as server, logged_in(server.url) as client:
        docs = [{"id": "one", "text": text_of("one")}]
        assert client.post("/training/train", json={"docs": docs}).status_code == 200
    with (
        serving(tmp_path, environment | {"EMBED_MODEL_NAME": "other"}, OWN_SERVE) as server,
        logged_in(server.url, register=False) as client,
    ):
        reply = client.post("/search", json={"query": "Who is the keeper of one?"})
        assert [hit["doc_id"] for hit in reply.json()["hits"]] == ["one"]
        assert until(lambda: any("llamabda reindex" in line for line in server.lines), 30)
        assert client.post("/training/train", json={"texts": ["Another text."]}).status_code == 200
