"""The images that template.yaml names, as the Dockerfile makes them."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

from scripts.local import template
from scripts.template import dockerfile

ROOT = template.ROOT
FUNCTIONS = {
    name: one for name, one in template.read()["Resources"].items() if one["Type"] == "AWS::Serverless::Function"
}
DOCKERFILE = dockerfile.stages(ROOT / "Dockerfile")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_made_of_a_target_and_begins_with_a_command_that_is_there(name):
    function = FUNCTIONS[name]
    metadata = function["Metadata"]
    assert (ROOT / metadata["DockerContext"] / metadata["Dockerfile"]).is_file()
    stage = DOCKERFILE[metadata["DockerBuildTarget"]]
    (command,) = function["Properties"].get("ImageConfig", {}).get("Command", stage.command)
    module, _, attribute = command.rpartition(".")
    spec = importlib.util.find_spec(module)
    assert spec is not None, f"{command}: there is no such module"
    assert spec.origin is not None
    defined = set()
    for node in ast.parse(Path(spec.origin).read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            defined.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            defined |= {one.asname or one.name for one in node.names}
    assert attribute in defined


def test_the_dockerfile_copies_what_is_there():
    assert len(DOCKERFILE) > 8
    assert dockerfile.missing(ROOT / "Dockerfile") == []


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("COPY locks/nothing.txt /build/", "made: no locks/nothing.txt"),
        ("COPY --from=nowhere /a /b", "made: no stage nowhere"),
    ],
)
def test_what_the_dockerfile_lacks_is_found(tmp_path, line, problem):
    broken = tmp_path / "Dockerfile"
    broken.write_text(f"FROM ${{BASE_IMAGE}} AS base\nFROM base AS made\n{line}\n")
    assert dockerfile.missing(broken) == [problem]
