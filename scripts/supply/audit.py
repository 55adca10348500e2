"""Known vulnerabilities of what the locks pin: `python -m scripts.supply.audit [LOCK ...]`.

pip-audit asks a service (`--service pypi` or `osv`); what it cannot ask about it leaves out, and calls the rest clean.
Here that is said for what it is. Exit codes: 0 all was looked up and nothing is known, 1 something is known, 2 usage, 3
nothing is known of what was looked up, but not all was.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.supply import environment

CLEAN, VULNERABLE, UNCHECKED = 0, 1, 3
# what stands in the images, and what makes them
LOCKS = ("auth", "ingest", "ask", "llama-cpp", "models", "setuptools", "local")
TIMEOUT_SECONDS = 15


@dataclass(frozen=True, slots=True)
class Known:
    """What a service said. `name`: with its version."""

    checked: frozenset[str] = frozenset()
    unchecked: frozenset[str] = frozenset()
    vulnerable: tuple[tuple[str, str, str], ...] = ()  # name, the vulnerability's id, versions that mend it

    def __or__(self, other: Known) -> Known:
        checked = self.checked | other.checked
        vulnerable = tuple(dict.fromkeys((*self.vulnerable, *other.vulnerable)))
        return Known(checked, (self.unchecked | other.unchecked) - checked, vulnerable)

    @property
    def code(self) -> int:
        if self.vulnerable:
            return VULNERABLE
        return CLEAN if self.checked and not self.unchecked else UNCHECKED


def read(report: Mapping[str, list[Mapping[str, object]]], pins: frozenset[str]) -> Known:
    """pip-audit's JSON over a lock with these pins ("name==version"). What it does not mention was not looked up."""
    checked, vulnerable = set(), []
    for one in report.get("dependencies", []):
        if "vulns" not in one:  # a reason why it was left out stands there
            continue
        name = pin(str(one["name"]), str(one["version"]))
        checked.add(name)
        for vulnerability in one["vulns"]:  # type: ignore[attr-defined]  # a list of objects, as pip-audit has it
            mended = ", ".join(vulnerability.get("fix_versions", [])) or "none yet"
            vulnerable.append((name, vulnerability["id"], mended))
    return Known(frozenset(checked), pins - checked, tuple(vulnerable))


def pin(name: str, version: str) -> str:
    return f"{name.lower().replace('_', '-').replace('.', '-')}=={version}"


def pins(lock: Path) -> frozenset[str]:
    lines = (line.split(";")[0].split(" \\")[0].strip() for line in lock.read_text("utf-8").splitlines())
    return frozenset(pin(*line.split("==", 1)) for line in lines if "==" in line and not line.startswith(("#", "-")))


def audit(lock: Path, service: str, tools: Path) -> Known:
    known = Known()
    for text in unconditional(lock.read_text("utf-8")):
        known |= _asked(lock.name, text, service, tools)
    return known


def unconditional(lock: str) -> list[str]:
    """The lock as locks without conditions, since pip-audit leaves out what does not hold where it runs, and the images
    have another Python. A package that is there in several versions is in several of them."""
    found: list[dict[str, str]] = []
    for block in re.split(r"^(?=\w)", lock, flags=re.MULTILINE):
        name = re.match(r"[\w.-]+", block)
        if name is None:
            continue
        part = next((one for one in found if name[0] not in one), None)
        if part is None:
            found.append(part := {})
        part[name[0]] = re.sub(r"\s*;[^\\\n]*", " ", block)
    return ["".join(part.values()) for part in found]


def _asked(name: str, text: str, service: str, tools: Path) -> Known:
    with tempfile.TemporaryDirectory() as folder:
        report, lock = Path(folder) / "report.json", Path(folder) / name
        lock.write_text(text, "utf-8")
        done = subprocess.run(
            [
                *(
                    str(tools / "pip-audit"),
                    "--requirement",
                    str(lock),
                    "--require-hashes",
                    "--no-deps",
                    "--disable-pip",
                ),
                *("--vulnerability-service", service, "--format", "json", "--output", str(report)),
                *("--progress-spinner", "off", "--timeout", str(TIMEOUT_SECONDS)),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if not report.is_file() or not report.stat().st_size:  # it gave up
            said = done.stderr.strip().splitlines() or ["it said nothing"]
            print(f"  {name}: pip-audit gave up ({said[-1][:200]})", file=sys.stderr)
            return Known(unchecked=pins(lock))
        return read(json.loads(report.read_text("utf-8")), pins(lock))


def tell(known: Known, service: str) -> None:
    for name, identifier, mended in known.vulnerable:
        print(f"VULNERABLE {name}: {identifier}; mended in {mended}")
    if known.unchecked:
        some = ", ".join(sorted(known.unchecked)[:5]) + (", ..." if len(known.unchecked) > 5 else "")
        print(f"NOT CHECKED: {len(known.unchecked)} of {len(known.checked | known.unchecked)} packages ({some}):")
        print(f"  the service `{service}` did not answer for them. This says nothing of whether they are safe.")
    if known.code == CLEAN:
        print(f"clean: `{service}` knows of no vulnerability in {len(known.checked)} packages")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("locks", nargs="*", type=Path, help="by default those of the images and of local use")
    parser.add_argument("--service", choices=("pypi", "osv"), default="pypi", help="(%(default)s)")
    given = parser.parse_args(argv)
    locks = given.locks or [environment.ROOT / "locks" / f"{name}.txt" for name in LOCKS]
    missing = [str(lock) for lock in locks if not lock.is_file()]
    if missing:
        parser.error(f"no such file: {', '.join(missing)}")
    try:
        tools = environment.install()
    except environment.SupplyError as exc:
        print(f"NOT CHECKED: {exc}")
        return UNCHECKED
    known = Known()
    for lock in sorted(locks, key=lambda path: len(pins(path))):  # the shortest first: is the service there at all?
        asked = known == Known() or known.checked
        known |= audit(lock, given.service, tools) if asked else Known(unchecked=pins(lock))
    tell(known, given.service)
    return known.code


if __name__ == "__main__":
    sys.exit(main())
