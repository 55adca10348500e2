#!/usr/bin/env python3
"""Whether AWS would take template.yaml, as far as that can be told without it: `make template`.

Needs the package registry for its tools, once, and no network after that.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # scripts are not installed

from scripts import tool_venv
from scripts.tool_venv import ROOT, program

TEMPLATE = str(ROOT / "template.yaml")
REGION = "eu-west-1"  # some have to know one; nothing is asked there
TESTS = (
    "tests/template",
    "tests/test_template.py",
    "tests/http/test_rights.py",
    "tests/http/test_issuer_rights.py",
    "tests/http/test_deployed.py",
)
# tools that would otherwise tell somebody that they run, or look for newer versions
QUIET = {"AWS_DEFAULT_REGION": REGION, "SAM_CLI_TELEMETRY": "0", "AWS_EC2_METADATA_DISABLED": "true"}


def run(what: str, *command: str, environment: dict[str, str] | None = None, output: Path | None = None) -> bool:
    """Whether it went well. `output`: a file for what it prints."""
    print(f"-- {what}", flush=True)
    variables = {**os.environ, **QUIET, **(environment or {})}
    with (output or Path(os.devnull)).open("wb") as file:
        target = file if output else None
        code = subprocess.run(command, cwd=ROOT, env=variables, stdout=target, check=False).returncode
    if code:
        print(f"-- {what}: failed", flush=True)
    return code == 0


def main() -> int:
    try:
        tool_venv.install("sam", "the SAM CLI")
        tool_venv.install("checks", "cfn-lint and checkov")
    except tool_venv.ToolError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="llamabda-template-") as folder:
        made = Path(folder) / "transformed.json"
        well = [
            run("sam validate", str(program("sam", "sam")), "validate", "--lint", "--region", REGION, "-t", TEMPLATE),
            run("cfn-lint", str(program("checks", "cfn-lint")), "-a", "cfn_lint_serverless.rules", "-t", TEMPLATE),
            run(
                "checkov",
                str(program("checks", "checkov")),
                *("--config-file", str(ROOT / "scripts" / "template" / "checkov.yaml"), "-f", TEMPLATE),
            ),
            run(
                "transforming it",
                *(str(program("sam", "python")), str(ROOT / "scripts" / "template" / "transform.py"), TEMPLATE),
                output=made,
            )
            # what SAM hands on unread, such as the properties of events, is looked at here alone
            and run("cfn-lint of what it becomes", str(program("checks", "cfn-lint")), "-t", str(made))
            and run(
                "tests",
                *(sys.executable, "-m", "pytest", "-q", *TESTS),
                environment={"LLAMABDA_TEST_TRANSFORMED": str(made)},
            ),
        ]
    return 0 if all(well) else 1


if __name__ == "__main__":
    sys.exit(main())
