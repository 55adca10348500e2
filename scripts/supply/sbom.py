"""A bill of materials of each image, from what lies in it: `python -m scripts.supply.sbom [IMAGE ...]`.

Writes CycloneDX 1.6 to build/sbom/<function>.cdx.json, and has the CycloneDX project's own library check it. Images are
those of `sam build`; any other is named as it is. Same image, same bytes.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.supply import environment, parts
from scripts.supply.contents import Contents, Image, inspect, opened, read
from scripts.supply.environment import ROOT, SupplyError

FUNCTIONS = ("auth", "ingest", "ask")
FOLDER = ROOT / "build" / "sbom"
SPEC = "1.6"
_VALIDATE = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
found = JsonStrictValidator(SchemaVersion.V1_6).validate_str(sys.stdin.read())
sys.exit(0 if found is None else str(found)[:2000])
"""


def bill(image: Image, contents: Contents, locked: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """SupplyError when the image holds neither distributions nor packages: then it was not read aright."""
    components = [
        *parts.python_distributions(contents, locked),
        *parts.debian_packages(contents),
        *parts.models(contents),
    ]
    if not components:
        raise SupplyError(f"{image.name} holds neither Python distributions nor Debian packages")
    if python := image.variables.get("PYTHON_VERSION"):  # of the public image, which compiles its own
        components.append({"type": "platform", "bom-ref": "python", "name": "python", "version": python})
    seen: set[str] = set()
    for component in components:
        while component["bom-ref"] in seen:
            component["bom-ref"] += "+"
        seen.add(component["bom-ref"])
    root = {
        "type": "container",
        "bom-ref": "image",
        "name": image.name,
        "version": image.id,
        "hashes": [{"alg": "SHA-256", "content": image.id.removeprefix("sha256:")}],
        "properties": [{"name": "llamabda:architecture", "value": image.architecture}],
    }
    return {
        "$schema": f"http://cyclonedx.org/schema/bom-{SPEC}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPEC,
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, image.id)}",
        "version": 1,
        "metadata": {"timestamp": _moment(image.created), "component": root},
        "components": components,
        "dependencies": [{"ref": "image", "dependsOn": sorted(seen)}, *({"ref": one} for one in sorted(seen))],
    }


def _moment(created: str) -> str:
    """As the schema has it: without the nanoseconds that an engine tells."""
    return re.sub(r"\.(\d{3})\d*", r".\1", created)


def lock_hashes(text: str) -> dict[str, tuple[str, ...]]:
    """The hashes that a lock allows, by "name==version"."""
    found: dict[str, tuple[str, ...]] = {}
    name = ""
    for line in text.splitlines():
        if pinned := re.match(r"([A-Za-z0-9._-]+)==([^\s;\\]+)", line):
            name = f"{pinned[1].lower().replace('_', '-').replace('.', '-')}=={pinned[2]}"
            found[name] = ()
        if digests := re.findall(r"--hash=sha256:([0-9a-f]{64})", line):
            found[name] = (*found[name], *digests)
    return found


def _locked(function: str) -> dict[str, tuple[str, ...]]:
    paths = [ROOT / "locks" / f"{name}.txt" for name in (function, "llama-cpp")]
    return {name: hashes for path in paths if path.is_file() for name, hashes in lock_hashes(path.read_text()).items()}


def of(name: str, function: str = "") -> dict[str, Any]:
    """The bill of an image that the engine has."""
    image = inspect(name)
    with opened(name) as stream:
        return bill(image, read(stream), _locked(function))


def validate(document: str, tools: Path) -> None:
    """SupplyError when it is not what CycloneDX's schema wants."""
    command = [str(tools / "python"), "-c", _VALIDATE]
    done = subprocess.run(command, input=document, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SupplyError(f"the bill of materials is not valid: {done.stderr.strip()}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("images", nargs="*", help="by default those that `sam build` makes")
    given = parser.parse_args(argv)
    names = given.images or [f"{function}function:{function}" for function in FUNCTIONS]
    try:
        tools = environment.install()
        FOLDER.mkdir(parents=True, exist_ok=True)
        for name in names:
            function = name.rpartition(":")[2] if name.rpartition(":")[2] in FUNCTIONS else ""
            document = json.dumps(of(name, function), indent=1, ensure_ascii=False) + "\n"
            validate(document, tools)
            path = FOLDER / f"{function or re.sub(r'[^A-Za-z0-9.-]', '-', name)}.cdx.json"
            path.write_text(document, "utf-8")
            print(f"{path.relative_to(ROOT)}: {document.count(chr(34) + 'bom-ref' + chr(34)) - 1} components")
    except SupplyError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
