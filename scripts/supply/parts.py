"""What an image's files are, as CycloneDX components: Python distributions, Debian packages, models."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from email.parser import HeaderParser
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from scripts.supply.contents import MODEL_SUFFIXES, Contents
from scripts.supply.environment import SupplyError

Component = dict[str, Any]
OURS = "opt/"
_STATUS = "var/lib/dpkg/status"


def python_distributions(contents: Contents, locked: Mapping[str, tuple[str, ...]]) -> Iterator[Component]:
    """`locked`: the hashes that the lock allows for "name==version".

    SupplyError when a file below /opt is not the one that was installed. That some are missing is fine: the images
    leave out tests and the like.
    """
    for path in sorted(contents.texts):
        if not path.endswith(".dist-info/METADATA"):
            continue
        folder = PurePosixPath(path).parent
        about = HeaderParser().parsestr(contents.texts[path].decode("utf-8", "replace"))
        name, version = str(about["Name"]), str(about["Version"])
        there, missing = _recorded(contents, folder)
        listed = "".join(f"{contents.files[one].sha256}  {one}\n" for one in sorted(there))
        normal = name.lower().replace("_", "-").replace(".", "-")
        properties = {
            "llamabda:folder": str(folder.parent),
            "llamabda:files": str(len(there)),
            "llamabda:files-left-out": str(missing),
        }
        wheels = [{"name": "llamabda:locked-sha256", "value": one} for one in locked.get(f"{normal}=={version}", ())]
        yield {
            "type": "library",
            "bom-ref": f"{folder}",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{quote(normal)}@{quote(version)}",
            "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(listed.encode()).hexdigest()}],
            **_licences(about.get("License-Expression"), about.get("License"), about.get_all("Classifier") or []),
            "properties": [*_properties(properties), *wheels],
        }


def _recorded(contents: Contents, folder: PurePosixPath) -> tuple[list[str], int]:
    """The files of a distribution that are there, and how many are not."""
    record = contents.texts.get(f"{folder}/RECORD", b"").decode("utf-8")
    there, missing = [], 0
    for row in csv.reader(record.splitlines()):
        path = _joined(folder.parent, row[0])
        found = contents.files.get(path)
        if found is None:
            missing += 1
            continue
        kind, _, digest = (row[1] if len(row) > 1 else "").partition("=")
        if kind == "sha256" and base64.urlsafe_b64decode(digest + "=" * (-len(digest) % 4)).hex() != found.sha256:
            if path.startswith(OURS):
                raise SupplyError(f"{path} is not the file that was installed: its SHA-256 is {found.sha256}")
            continue  # a distribution's own patches: dpkg answers for them
        there.append(path)
    return there, missing


def _joined(base: PurePosixPath, relative: str) -> str:
    parts = list(base.parts)
    for part in PurePosixPath(relative).parts:
        if part == "..":
            parts = parts[:-1]
        else:
            parts.append(part)
    return "/".join(part for part in parts if part != "/")


def _licences(expression: str | None, text: str | None, classifiers: list[str]) -> dict[str, object]:
    if expression:
        return {"licenses": [{"expression": expression}]}
    if text and len(text) <= 100 and "\n" not in text.strip():
        return {"licenses": [{"license": {"name": text.strip()}}]}
    names = [one.rsplit(" :: ", 1)[1] for one in classifiers if one.startswith("License :: ")]
    return {"licenses": [{"license": {"name": name}} for name in names]} if names else {}


def debian_packages(contents: Contents) -> Iterator[Component]:
    """Those that dpkg calls installed. Licences where a copyright file is made for machines (DEP-5)."""
    release = dict(
        line.split("=", 1)
        for line in contents.texts.get("usr/lib/os-release", contents.texts.get("etc/os-release", b""))
        .decode()
        .splitlines()
        if "=" in line
    )
    distribution = release.get("ID", "debian").strip('"')
    for paragraph in contents.texts.get(_STATUS, b"").decode("utf-8", "replace").split("\n\n"):
        about = HeaderParser().parsestr(paragraph)
        if "installed" not in str(about.get("Status", "")).split():
            continue
        name, version, architecture = str(about["Package"]), str(about["Version"]), str(about["Architecture"])
        copyright_file = contents.texts.get(f"usr/share/doc/{name}/copyright", b"").decode("utf-8", "replace")
        found = [line[8:].strip() for line in copyright_file.splitlines() if line.startswith("License:")]
        names = dict.fromkeys(one for one in found if one) if copyright_file.startswith("Format:") else {}
        yield {
            "type": "library",
            "bom-ref": f"deb:{name}:{architecture}",
            "name": name,
            "version": version,
            "purl": f"pkg:deb/{distribution}/{quote(name)}@{quote(version)}?arch={architecture}",
            **({"licenses": [{"license": {"name": one}} for one in names]} if names else {}),
            "properties": _properties({"llamabda:source": str(about.get("Source") or name)}),
        }


def models(contents: Contents) -> Iterator[Component]:
    """Weights below /opt, each with its file's SHA-256; name and licence where the file or its folder says them."""
    for path, file in sorted(contents.files.items()):
        if not path.startswith("opt/") or not path.endswith(MODEL_SUFFIXES) or "/packages/" in path:
            continue
        beside = contents.texts.get(f"{PurePosixPath(path).parent}/embedder.json")
        about = gguf(contents.texts[path]) if path.endswith(".gguf") else json.loads(beside) if beside else {}
        licence = about.get("licence") or about.get("general.license")
        yield {
            "type": "machine-learning-model",
            "bom-ref": path,
            "name": str(about.get("name") or about.get("general.name") or PurePosixPath(path).name),
            "version": str(about.get("fingerprint") or file.sha256[:12]),
            "hashes": [{"alg": "SHA-256", "content": file.sha256}],
            **({"licenses": [{"license": {"name": str(licence)}}]} if licence else {}),
            "properties": _properties({"llamabda:path": path, "llamabda:bytes": str(file.size)}),
        }


def gguf(head: bytes) -> dict[str, str]:
    """The texts among a GGUF file's description (`general.*`), which stands at its beginning; {} when it is none."""
    found: dict[str, str] = {}
    if head[:4] != b"GGUF":
        return found
    at, (count,) = 24, struct.unpack_from("<Q", head, 16)
    try:
        for _ in range(count):
            key, at = _text(head, at)
            (kind,) = struct.unpack_from("<I", head, at)
            at += 4
            if kind == 8:  # a text
                found[key], at = _text(head, at)
            elif kind in _SIZES:
                at += _SIZES[kind]
            else:
                at = _beyond_array(head, at)
    except (struct.error, UnicodeDecodeError):  # it goes on beyond what was kept
        pass
    return found


def _beyond_array(head: bytes, at: int) -> int:
    kind, length = struct.unpack_from("<IQ", head, at)
    at += 12
    if kind in _SIZES:
        return at + length * _SIZES[kind]
    for _ in range(length):
        _, at = _text(head, at)
    return at


_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes of GGUF's numbers, by their kind


def _text(head: bytes, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<Q", head, at)
    if at + 8 + length > len(head):
        raise struct.error("cut")
    return head[at + 8 : at + 8 + length].decode("utf-8"), at + 8 + length


def _properties(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in values.items()]
