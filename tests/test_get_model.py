"""Getting one GGUF file for an image: over a real local server, from files, converted by the real llama.cpp."""

from __future__ import annotations

import hashlib
import importlib.util
import socket
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from llamabda import downloads
from tests.conftest import ROOT
from tests.contracts.conftest import gguf

__all__ = ["gguf"]

CONTENT = b"GGUF" + bytes(range(256)) * 4_000  # 1 MB


def _load():
    spec = importlib.util.spec_from_file_location("get_model", ROOT / "llama-layer-build" / "get_model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


get_model = _load()


def digest(content):
    return hashlib.sha256(content).hexdigest()


class Shelf(SimpleHTTPRequestHandler):
    def send_head(self):
        if self.path != "/moved":
            return super().send_head()
        self.send_response(302)
        self.send_header("Location", "http://models.invalid/model.gguf")
        self.end_headers()
        return None

    def log_message(self, format, *args):
        pass


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A folder, and the address that it is served at."""
    monkeypatch.setattr(downloads, "PAUSE_SECONDS", 0.0)
    folder = tmp_path / "shelf"
    folder.mkdir()
    (folder / "model.gguf").write_bytes(CONTENT)
    (folder / "page.html").write_bytes(b"<html>Please sign in</html>")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Shelf, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """The script: its exit code, what it said, and the file that it made, if it did."""

    def ran(*arguments):
        out = tmp_path / "made" / "model.gguf"
        monkeypatch.setattr(sys, "argv", ["get_model.py", *map(str, arguments), "--out", str(out)])
        code = get_model.main()
        left = [path.name for path in out.parent.iterdir()] if out.parent.exists() else []
        assert left == ([out.name] if code == 0 else []), "nothing half-made is left"
        return code, capsys.readouterr().err, out

    return ran


def refused(result, *words):
    code, said, out = result
    assert code == 1
    assert "error: " in said
    assert all(word in said for word in words), said
    assert "Traceback" not in said
    assert not out.exists()


@pytest.mark.parametrize("shown", [str.lower, str.upper], ids=["lower case", "upper case"])
def test_a_file_of_an_address_is_taken_when_its_digest_is_right(run, shelf, shown):
    code, said, out = run(f"{shelf}/model.gguf", "--sha256", shown(digest(CONTENT)))
    assert code == 0
    assert out.read_bytes() == CONTENT
    assert "model.gguf: 1.0 MB" in said


def test_a_file_of_an_address_with_another_digest_is_thrown_away(run, shelf):
    refused(run(f"{shelf}/model.gguf", "--sha256", digest(b"other")), "not the file that was expected", digest(CONTENT))


def test_an_address_without_a_digest_is_refused_before_anything_is_asked(run):
    refused(run("https://models.invalid/model.gguf"), "--sha256", "https://models.invalid/model.gguf")


@pytest.mark.parametrize(
    "address",
    [
        "http://models.invalid/model.gguf",
        "http://127.0.0.1.models.invalid/model.gguf",
        "http://localhost:80@models.invalid/model.gguf",
        "ftp://models.invalid/model.gguf",
        "file:///etc/hostname",
    ],
)
def test_what_is_not_encrypted_is_refused(run, address):
    refused(run(address, "--sha256", digest(CONTENT)), "over https only", address.partition("://")[0])


def test_nobody_is_followed_to_where_nothing_is_encrypted(run, shelf):
    refused(run(f"{shelf}/moved", "--sha256", digest(CONTENT)), "over https only", "models.invalid")


def test_a_server_that_does_not_answer_is_named(run):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # nobody listens
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/model.gguf"
        refused(run(address, "--sha256", digest(CONTENT)), address, "cannot be reached")


def test_a_file_that_the_server_does_not_have_is_named(run, shelf):
    refused(run(f"{shelf}/none.gguf", "--sha256", digest(CONTENT)), f"{shelf}/none.gguf", "404")


def test_a_page_in_place_of_a_model_is_told_apart(run, shelf):
    page = b"<html>Please sign in</html>"
    refused(run(f"{shelf}/page.html", "--sha256", digest(page)), "no GGUF file", "<htm")


def test_a_file_of_this_machine_needs_no_digest(run, tmp_path):
    own = tmp_path / "own.gguf"
    own.write_bytes(CONTENT)
    code, _, out = run(own)
    assert code == 0
    assert out.read_bytes() == own.read_bytes() == CONTENT


def test_a_file_of_this_machine_is_checked_when_a_digest_is_given(run, tmp_path):
    own = tmp_path / "own.gguf"
    own.write_bytes(CONTENT)
    assert run(own, "--sha256", digest(CONTENT))[0] == 0


def test_a_file_of_this_machine_with_another_digest_is_refused(run, tmp_path):
    own = tmp_path / "own.gguf"
    own.write_bytes(CONTENT)
    refused(run(own, "--sha256", digest(b"other")), str(own), digest(CONTENT), digest(b"other"))


@pytest.mark.parametrize("content", [b"", b"GGU", b"PK\x03\x04 a zip"])
def test_a_file_that_is_no_gguf_is_refused(run, tmp_path, content):
    own = tmp_path / "own.gguf"
    own.write_bytes(content)
    refused(run(own), "no GGUF file", repr(content[:4]))


def test_the_name_of_an_embedding_model_is_refused(run):
    refused(run("sentence-transformers/all-MiniLM-L6-v2"), "no language model", "llamabda models list")


def test_what_is_neither_a_name_nor_a_file_is_refused(run):
    refused(run("no-such-model"), "no-such-model", "catalogue", "https")


def test_a_digest_of_another_length_is_a_usage_error(run, capsys):
    with pytest.raises(SystemExit) as ended:
        run("smollm2-135m-instruct", "--sha256", "abc")
    assert ended.value.code == 2
    assert "64 hexadecimal digits" in capsys.readouterr().err


def kind_of(path):
    """The file's general.file_type, as llama.cpp numbers it."""
    from llama_cpp import Llama

    model = Llama(str(path), vocab_only=True, verbose=False)
    try:
        return int(model.metadata["general.file_type"])
    finally:
        model.close()


@pytest.mark.parametrize(("kind", "number"), [("Q8_0", 7), ("Q4_0", 2)])
def test_a_model_is_converted_by_llama_cpp(run, gguf, kind, number):
    code, said, out = run(gguf, "--requantize", kind)
    assert code == 0
    assert f"converting to {kind}" in said
    assert kind_of(out) == number
    assert (out.stat().st_size > 1.3 * gguf.stat().st_size) is (kind == "Q8_0")


def test_a_number_format_that_is_not_made_is_refused_with_those_that_are(run, gguf):
    refused(run(gguf, "--requantize", "Q3_K_S"), "Q3_K_S", "Q4_0", "Q8_0")


def test_a_damaged_model_cannot_be_converted(run, tmp_path):
    own = tmp_path / "own.gguf"
    own.write_bytes(CONTENT)
    refused(run(own, "--requantize", "Q4_0"), "cannot be converted to Q4_0")
