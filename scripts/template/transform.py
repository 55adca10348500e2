"""What AWS makes of template.yaml, as JSON: `.venv-sam/bin/python scripts/template/transform.py template.yaml`.

Runs with the SAM CLI's own environment, whose pins are not ours.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # scripts are not installed

from scripts.local import template


class _NoPolicies:
    """The template names no managed policies, so that nothing has to be asked of IAM."""

    def load(self) -> dict[str, str]:
        return {}


def transformed(path: Path) -> dict[str, object]:
    from samtranslator.translator.transform import transform

    given = template.read(path)
    for resource in given["Resources"].values():
        if resource["Type"] == "AWS::Serverless::Function":
            resource["Properties"]["ImageUri"] = "image-of-sam-build"  # which `sam build` puts there
    found = transform(given, {}, _NoPolicies())
    assert isinstance(found, dict)
    return found


if __name__ == "__main__":
    json.dump(transformed(Path(sys.argv[1])), sys.stdout)
