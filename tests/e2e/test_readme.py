"""What the READMEs show of the bundle holds for the bundle."""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from tests.conftest import ROOT
from tests.e2e.conftest import ADDRESS, AWS, eventually


def blocks(readme: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / readme).read_text("utf-8"), re.MULTILINE | re.DOTALL)


def run(script: str) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("readme", "answer"), [("README.md", "31 March"), ("README.pt-BR.md", "31 de março")])
def test_the_first_lines_hold_at_the_other_address(readme, answer):
    first = blocks(readme, "sh")[0]
    assert "API=http://127.0.0.1:8000" in first
    told = run(first.replace("http://127.0.0.1:8000", os.environ[ADDRESS]))
    assert answer in told


@pytest.mark.parametrize("readme", ["README.md", "README.pt-BR.md"])
def test_a_file_that_is_put_into_the_bucket_as_shown_is_ingested(readme, alice, bucket):
    (shown,) = blocks(readme, "bash")
    run(shown.replace("http://127.0.0.1:5005", os.environ[AWS]))
    eventually(lambda: (alice.document("s3:docs/models.md") or {}).get("state") == "ready")
    bucket("delete_object", "docs/models.md")
    eventually(lambda: alice.document("s3:docs/models.md") is None)
