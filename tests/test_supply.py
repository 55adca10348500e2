"""Bills of materials, audits and the look for secrets, over images that are made here: no engine, no network."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import struct
import tarfile
from pathlib import Path

import pytest

from scripts.supply import audit, environment, sbom, secrets
from scripts.supply.contents import Contents, Image, read
from scripts.supply.environment import SupplyError
from scripts.supply.parts import gguf

IMAGE = Image("askfunction:ask", "sha256:" + "ab" * 32, "2026-11-23T10:00:00.123456789Z", "amd64", {}, ())
DPKG = """\
Package: libc6
Status: install ok installed
Architecture: amd64
Source: glibc
Version: 2.41-12+deb13u1

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1.0
"""
COPYRIGHT = (
    "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\nLicense: LGPL-2.1+\n"
)


def packed(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return made.getvalue()


def tar(files: dict[str, bytes]) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(packed(files)), mode="r|*")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def recorded(content: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def distribution(name: str, version: str, *, licence: str = "", code: bytes = b"x = 1\n", at: str = "opt/packages"):
    folder = f"{name}-{version}.dist-info"
    about = f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n{licence}\n\nText\n"
    listed = [(f"{name}/__init__.py", code), (f"{name}/tests/test_x.py", b"")]
    record = (
        "".join(f"{path},{recorded(content)},{len(content)}\n" for path, content in listed) + f"{folder}/RECORD,,\n"
    )
    return {
        f"{at}/{name}/__init__.py": code,
        f"{at}/{folder}/METADATA": about.encode(),
        f"{at}/{folder}/RECORD": record.encode(),
    }


def model(**texts: str) -> bytes:
    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    tags = text("general.tags") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("b")
    size = text("general.size") + struct.pack("<If", 6, 1.5)
    pairs = [text(key.replace("_", ".")) + struct.pack("<I", 8) + text(value) for key, value in texts.items()]
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 2 + len(pairs)) + tags + size + b"".join(pairs) + b"weights" * 100


@pytest.fixture
def files() -> dict[str, bytes]:
    return {
        **distribution("one_thing", "1.2", licence="License-Expression: MIT"),
        **distribution("other", "3", licence="Classifier: License :: OSI Approved :: BSD License"),
        "var/lib/dpkg/status": DPKG.encode(),
        "usr/share/doc/libc6/copyright": COPYRIGHT.encode(),
        "usr/lib/os-release": b'ID=debian\nVERSION_ID="13"\n',
        "opt/model/model.gguf": model(general_name="Small", general_license="apache-2.0"),
        "opt/cache/models/mini/model.onnx": b"graph",
        "opt/cache/models/mini/embedder.json": b'{"name": "org/mini", "fingerprint": "mini-1", "licence": "MIT"}',
    }


def parts(files: dict[str, bytes]) -> dict[str, dict]:
    made = sbom.bill(IMAGE, read(tar(files)), {"one-thing==1.2": ("ff" * 32,)})
    return {one["name"]: one for one in made["components"]}


def test_a_bill_names_what_lies_in_the_image(files):
    found = parts(files)
    assert {name: (one["type"], one.get("purl")) for name, one in found.items()} == {
        "one_thing": ("library", "pkg:pypi/one-thing@1.2"),
        "other": ("library", "pkg:pypi/other@3"),
        "libc6": ("library", "pkg:deb/debian/libc6@2.41-12%2Bdeb13u1?arch=amd64"),
        "Small": ("machine-learning-model", None),
        "org/mini": ("machine-learning-model", None),
    }
    assert found["one_thing"]["licenses"] == [{"expression": "MIT"}]
    assert found["other"]["licenses"] == [{"license": {"name": "BSD License"}}]
    assert found["libc6"]["licenses"] == [{"license": {"name": "LGPL-2.1+"}}]
    assert found["Small"]["licenses"] == [{"license": {"name": "apache-2.0"}}]


def test_hashes_are_those_of_the_files(files):
    found = parts(files)
    assert found["Small"]["hashes"] == [{"alg": "SHA-256", "content": sha256(files["opt/model/model.gguf"])}]
    # of a distribution: over the list of its files that are there, as sha256sum prints them
    there = sorted(path for path in files if "/other" in path and "METADATA" not in path)
    listed = "".join(f"{sha256(files[path])}  {path}\n" for path in there)
    assert found["other"]["hashes"] == [{"alg": "SHA-256", "content": sha256(listed.encode())}]
    told = [(one["name"], one["value"]) for one in found["one_thing"]["properties"]]
    assert ("llamabda:files-left-out", "1") in told
    assert ("llamabda:locked-sha256", "ff" * 32) in told


def test_a_file_that_is_not_the_installed_one_is_an_error(files):
    files["opt/packages/other/__init__.py"] = b"x = 2\n"
    with pytest.raises(SupplyError, match=r"opt/packages/other/__init__\.py is not the file that was installed"):
        parts(files)


def test_what_the_base_patched_is_its_own_affair(files):
    files |= distribution("pip", "26", at="usr/lib/python3/dist-packages")
    files["usr/lib/python3/dist-packages/pip/__init__.py"] = b"patched\n"
    assert parts(files)["pip"]["version"] == "26"


def test_an_image_that_was_not_read_aright_has_no_bill():
    with pytest.raises(SupplyError, match="askfunction:ask holds neither"):
        sbom.bill(IMAGE, Contents(), {})


def test_the_same_image_has_the_same_bill(files):
    made = [json.dumps(sbom.bill(IMAGE, read(tar(files)), {})) for _ in range(2)]
    assert made[0] == made[1]
    document = json.loads(made[0])
    assert document["metadata"]["timestamp"] == "2026-11-23T10:00:00.123Z"
    refs = [one["bom-ref"] for one in document["components"]]
    assert len(set(refs)) == len(refs)
    assert document["dependencies"][0] == {"ref": "image", "dependsOn": sorted(refs)}


def test_packages_that_lie_in_two_places_are_both_told(files):
    files |= distribution("other", "3", at="opt/llamabda")
    made = sbom.bill(IMAGE, read(tar(files)), {})
    assert [one["name"] for one in made["components"]].count("other") == 2


@pytest.mark.parametrize(
    "head", [b"", b"nothing of the kind", model(general_name="x")[:40], model(general_name="x")[:80]]
)
def test_a_model_that_says_nothing_of_itself_is_no_error(head):
    assert gguf(head) == {}


def test_locks_say_which_hashes_are_allowed():
    text = f"A_b.c==1 \\\n    --hash=sha256:{'a' * 64} \\\n    --hash=sha256:{'b' * 64}\nd==2 ; python_version < '4'\n"
    assert sbom.lock_hashes(text) == {"a-b-c==1": ("a" * 64, "b" * 64), "d==2": ()}


# -- known vulnerabilities


def tools(folder: Path, *, prints: object = None, code: int = 0) -> Path:
    """A pip-audit that writes this report; None: it gives up without one."""
    folder.mkdir()
    script = folder / "pip-audit"
    report = "" if prints is None else json.dumps(prints)
    script.write_text(
        "#!/usr/bin/env python3\nimport sys\n"
        f"report = {report!r}\n"
        "if report: open(sys.argv[sys.argv.index('--output') + 1], 'w').write(report)\n"
        f"print('ConnectionError: nobody there', file=sys.stderr)\nsys.exit({code})\n"
    )
    script.chmod(0o755)
    return folder


@pytest.fixture
def lock(tmp_path) -> Path:
    path = tmp_path / "lock.txt"
    path.write_text("safe==1.0 \\\n    --hash=sha256:00\nBad_one==2 ; python_version < '4' \\\n    --hash=sha256:00\n")
    return path


SAFE = {"name": "safe", "version": "1.0", "vulns": []}
BAD = {"name": "bad-one", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"], "aliases": []}]}
GOOD = {"name": "bad-one", "version": "2", "vulns": []}
SKIPPED = {"name": "bad-one", "skip_reason": "Dependency not found on PyPI and could not be audited"}


@pytest.mark.parametrize(
    ("report", "code", "says"),
    [
        ([SAFE, GOOD], 0, ["clean: `osv` knows of no vulnerability in 2 packages"]),
        ([SAFE, BAD], 1, ["VULNERABLE bad-one==2: CVE-1; mended in 3"]),
        ([SAFE, SKIPPED], 3, ["NOT CHECKED: 1 of 2 packages (bad-one==2)"]),
        ([SAFE], 3, ["NOT CHECKED: 1 of 2"]),  # what it does not mention was not looked up
        (None, 3, ["NOT CHECKED: 2 of 2", "This says nothing of whether they are safe"]),
    ],
)
def test_what_was_not_checked_is_never_called_clean(tmp_path, lock, monkeypatch, capsys, report, code, says):
    made = tools(tmp_path / "bin", prints=None if report is None else {"dependencies": report, "fixes": []}, code=1)
    monkeypatch.setattr(environment, "install", lambda: made)
    assert audit.main([str(lock), "--service", "osv"]) == code
    out = capsys.readouterr().out
    assert all(line in out for line in says)
    assert ("clean" in out) == (code == 0)


def test_a_vulnerability_counts_even_where_others_were_not_checked(tmp_path, lock, monkeypatch, capsys):
    report = {"dependencies": [{**BAD}, {"name": "safe", "skip_reason": "not there"}]}
    monkeypatch.setattr(environment, "install", lambda: tools(tmp_path / "bin", prints=report))
    assert audit.main([str(lock)]) == 1
    assert "NOT CHECKED: 1 of 2 packages (safe==1.0)" in capsys.readouterr().out


def test_a_service_that_is_not_there_is_asked_once(tmp_path, lock, monkeypatch, capsys):
    other = tmp_path / "other.txt"
    other.write_text("x==1\n")
    monkeypatch.setattr(environment, "install", lambda: tools(tmp_path / "bin"))
    asked = []
    real = audit.audit
    monkeypatch.setattr(audit, "audit", lambda path, *more: asked.append(path) or real(path, *more))
    assert audit.main([str(lock), str(other)]) == 3
    assert asked == [other]
    assert "NOT CHECKED: 3 of 3" in capsys.readouterr().out


def test_without_the_tools_nothing_is_checked(lock, monkeypatch, capsys):
    def fail() -> Path:
        raise SupplyError("the tools cannot be installed")

    monkeypatch.setattr(environment, "install", fail)
    assert audit.main([str(lock)]) == 3
    assert capsys.readouterr().out.startswith("NOT CHECKED: the tools cannot be installed")


def test_what_a_lock_has_for_other_pythons_and_systems_is_looked_up_as_well():
    hashed = "    --hash=sha256:00\n"
    lock = (
        f"a==1 ; python_version < '3' \\\n{hashed}a==2 ; python_version >= '3' \\\n{hashed}"
        f"B.c==3 \\\n{hashed}d==4 ; x == 'y'\n"
    )
    parts = audit.unconditional(lock)
    assert parts == [f"a==1 \\\n{hashed}B.c==3 \\\n{hashed}d==4 \n", f"a==2 \\\n{hashed}"]
    for name in audit.LOCKS:
        text = (environment.ROOT / "locks" / f"{name}.txt").read_text("utf-8")
        assert not any(";" in part for part in audit.unconditional(text))
        assert sum(part.count("==") for part in audit.unconditional(text)) == len(
            re.findall(r"^\S+==", text, re.MULTILINE)
        )


def test_every_lock_that_is_audited_is_there():
    for name in audit.LOCKS:
        assert audit.pins(environment.ROOT / "locks" / f"{name}.txt"), name


# -- secrets


def test_hosts_of_indexes_are_those_that_are_configured_but_for_the_one_of_everybody(monkeypatch):
    public = secrets.public_host()
    assert "." in public
    monkeypatch.setenv("PIP_INDEX_URL", f"https://{public}/simple")
    monkeypatch.setenv(
        "PIP_EXTRA_INDEX_URL", "https://user:word@packages.example.org/simple http://other.example.org:8080/"
    )
    found = secrets.index_hosts()
    assert {"packages.example.org", "other.example.org"} <= set(found)
    assert public not in found


KEY = (
    b"-----BEGIN RSA PRIVATE KEY-----\n"
    + b"\n".join([b"MIIEpAIBAAKCAQEA" + b"q" * 48] * 5)
    + b"\n-----END RSA PRIVATE KEY-----\n"
)
SECRETS = [
    (b"x = 1\n" + KEY, "a private key"),
    (b"id = AKIA" + b"QWERTYUIOP123456", "an AWS access key"),
    (b"aws_secret_access_key = " + b"aB3/" * 10, "an AWS secret key"),
    (b"token: ghp_" + b"a1" * 18, "a token of GitHub"),
    (b"pypi-" + b"AgEIcHlwaS5vcmc" * 5, "a token of a package index"),
    (b"hf_" + b"aB" * 17, "a token of a model hub"),
    (b"key=sk-proj-" + b"aB1_" * 12, "a key of a model's API"),
]
HARMLESS = [
    b"if text.startswith('-----BEGIN RSA PRIVATE KEY-----'):",
    b"AKIAIOSFODNN7EXAMPLE and wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    b"aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    b"the pypi-publish action; hf_hub_download; sk-learn; ghp_short",
]


@pytest.mark.parametrize(("text", "what"), SECRETS, ids=[what for _, what in SECRETS])
def test_secrets_are_found(text, what):
    assert [one.what for one in secrets.in_text("here", text)] == [what]


@pytest.mark.parametrize("text", HARMLESS)
def test_what_only_speaks_of_secrets_is_none(text):
    assert list(secrets.in_text("here", text)) == []


@pytest.mark.parametrize(
    "path",
    [
        ".env",
        "opt/x/.env.local",
        "root/.netrc",
        "etc/pip.conf",
        "home/u/.aws/credentials",
        "opt/signing-key.pem",
        ".git/config",
    ],
)
def test_files_of_credentials_are_found_by_their_names(path):
    (found,) = secrets.in_layer(tar({path: b""}), "layer 3")
    assert found == secrets.Finding(f"layer 3: {path}", "a file of credentials or settings")


def test_other_files_are_not():
    files = {
        "opt/packages/certifi/cacert.pem": b"-----BEGIN CERTIFICATE-----",
        "opt/x/environment": b"",
        "a/pip/conf": b"",
    }
    assert list(secrets.in_layer(tar(files), "layer 3")) == []


@pytest.mark.parametrize(
    ("command", "what"),
    [
        ("RUN pip install --index-url https://index.test/simple x", ["the address of a package index"]),
        ("|1 TORCH_INDEX_URL=https://index.test/whl /bin/sh -c x", ["the address of a package index"]),
        ("ENV PIP_EXTRA_INDEX_URL=https://index.test/simple", ["the address of a package index"]),
        ("RUN curl https://user:hunter2@files.test/x", ["an address with a password"]),
        ("RUN curl https://mirror.corp.test/x", ["the host of a package index of this machine"]),
        ("|2 EMBEDDER=onnx TORCH_INDEX_URL= /bin/sh -c python embedder.py --torch-index ''", []),
        ("ENV PIP_ROOT_USER_ACTION=ignore", []),
    ],
)
def test_commands_of_the_history_name_no_index(command, what):
    assert [one.what for one in secrets.in_commands("step", command.encode(), ["mirror.corp.test"])] == what


def saved(path: Path, layers: list[dict[str, bytes]], *, history: str = "COPY x", env: str = "A=b") -> list[str]:
    """As `docker save` writes it; the layers' digests."""
    digests = [f"sha256:{number:064x}" for number in range(len(layers))]
    config = {
        "history": [{"created_by": history}],
        "config": {"Env": [env], "Cmd": ["x"]},
        "rootfs": {"diff_ids": digests},
    }
    content = {"config.json": json.dumps(config).encode()}
    content |= {f"{number}/layer.tar": packed(files) for number, files in enumerate(layers)}
    manifest = [{"Config": "config.json", "Layers": [f"{number}/layer.tar" for number in range(len(layers))]}]
    path.write_bytes(packed({**content, "manifest.json": json.dumps(manifest).encode()}))
    return digests


def test_a_secret_that_a_later_layer_hides_is_found(tmp_path):
    saved(tmp_path / "image.tar", [{"opt/key.txt": KEY}, {"opt/.wh.key.txt": b""}])
    assert secrets.in_saved(tmp_path / "image.tar") == [secrets.Finding("layer 0: opt/key.txt", "a private key")]


def test_layers_of_the_base_are_its_own_affair(tmp_path):
    digests = saved(tmp_path / "image.tar", [{"etc/pip.conf": b""}, {"opt/x.py": b"x = 1"}])
    assert secrets.in_saved(tmp_path / "image.tar", base=digests[:1]) == []
    assert len(secrets.in_saved(tmp_path / "image.tar")) == 1


def test_history_and_variables_are_looked_at(tmp_path):
    saved(tmp_path / "image.tar", [{}], history="RUN x ghp_" + "a1" * 18, env="PIP_INDEX_URL=https://index.test/simple")
    found = secrets.in_saved(tmp_path / "image.tar")
    assert [(one.where, one.what) for one in found] == [
        ("history, step 0", "a token of GitHub"),
        ("configuration, Env", "the address of a package index"),
    ]


# -- the base image


def test_every_stage_stands_on_the_base_that_is_named_or_on_another_stage():
    """So that `name@sha256:...` can be given: nothing is put behind the name."""
    lines = (environment.ROOT / "Dockerfile").read_text("utf-8").splitlines()
    froms = [line.split() for line in lines if line.startswith("FROM ")]
    stages: set[str] = set()
    for words in froms:
        assert words[1] == "${BASE_IMAGE}" or words[1] in stages, words
        assert words[2] == "AS"
        stages.add(words[3])
    assert {"auth", "ingest", "ask"} <= stages
    declared = [number for number, line in enumerate(lines) if line.startswith("ARG BASE_IMAGE")]
    assert len(declared) == 1
    assert declared[0] < next(number for number, line in enumerate(lines) if line.startswith("FROM "))
