"""Docker and compose, as the stack on one machine has them: both are played."""

from __future__ import annotations

import subprocess

import pytest

from scripts.local import compose as composing
from scripts.local import engine, sam
from scripts.local.compose import Compose
from scripts.local.engine import StackError
from tests.conftest import ROOT
from tests.programs import RECORDED, calls


def test_docker_that_is_not_installed_is_said_to_be_missing(commands):
    with pytest.raises(StackError, match="Docker is not installed"):
        engine.compose_command()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("Cannot connect to the Docker daemon at unix:///x", "no Docker engine answers: start one (Cannot connect to"),
        ("ERROR: permission denied while trying to connect", "this user may not use the Docker engine"),
        ("", "no Docker engine answers: start one (`docker info` ended with 1)"),
    ],
)
def test_what_stands_in_the_way_of_docker_is_told_apart(commands, said, told):
    lines = f"a warning\n{said}\nerrors pretty printing info\n" if said else ""
    commands("docker", f"import sys; sys.stderr.write({lines!r}); sys.exit(1)")
    with pytest.raises(StackError) as caught:
        engine.compose_command()
    assert str(caught.value).startswith(told)
    assert said in str(caught.value)


def test_compose_is_looked_for_under_both_names(commands):
    commands("docker", "import sys; sys.exit(sys.argv[1] == 'compose')")
    with pytest.raises(StackError, match="neither `docker compose` nor `docker-compose`"):
        engine.compose_command()
    commands("docker-compose", "")
    assert engine.compose_command() == ("docker-compose",)
    commands("docker", "")
    assert engine.compose_command() == ("docker", "compose")


def test_the_engine_is_asked_for_before_anything_is_installed():
    for target in ("local", "e2e"):
        recipe = subprocess.run(
            ["make", "-n", "--no-print-directory", target], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        first, second, *_ = recipe.splitlines()
        assert "scripts/local/engine.py" in first
        assert "scripts/bootstrap.py" in second


@pytest.mark.parametrize(("docker", "template"), [("amd64", "x86_64"), ("arm64", "arm64")])
def test_images_are_built_for_the_engines_processors(commands, docker, template):
    commands("docker", f"print({docker!r})")
    assert engine.architecture() == template
    assert sam.overrides("start-api", template).endswith(f" Architecture={template}")
    assert "KnnEngine=lucene" in sam.overrides("start-lambda", template)


def test_other_processors_are_refused(commands):
    commands("docker", "print('riscv64')")
    with pytest.raises(StackError, match="amd64 and arm64; this Docker engine runs 'riscv64'"):
        engine.architecture()


def test_compose_is_told_the_ports_and_the_network(commands, tmp_path, monkeypatch):
    commands("docker", "")
    commands("docker-compose", RECORDED)
    monkeypatch.setenv("AWS_PORT", "1")
    Compose(("docker-compose",), "llamabda-local-7", {"AWS_PORT": "5", "OPENSEARCH_PORT": "6"}).build("aws")
    ((arguments, _, told),) = calls(tmp_path, "docker-compose")
    assert arguments == ["-f", str(ROOT / composing.FILE), "-p", "llamabda-local-7", "build", "aws"]
    assert told == {"AWS_PORT": "5", "OPENSEARCH_PORT": "6", "LLAMABDA_NETWORK": "llamabda-local-7"}


def test_taking_down_is_out_of_reach_of_the_terminal(commands, tmp_path):
    commands("docker", RECORDED + "print('c1', 'c2')")
    commands("docker-compose", RECORDED)
    Compose(("docker-compose",), "p").down(data=True)
    listed, removed = calls(tmp_path, "docker")
    (down,) = calls(tmp_path, "docker-compose")
    assert "network=p" in listed[0]
    assert removed[0] == ["rm", "--force", "c1", "c2"]
    assert down[0][-3:] == ["down", "--remove-orphans", "--volumes"]
    assert all(apart for _, apart, _ in (listed, removed, down))


def test_what_cannot_be_taken_down_is_said(commands):
    commands("docker", "")
    commands("docker-compose", "import sys; sys.exit(3)")
    with pytest.raises(StackError, match=r"may be left: `docker-compose -f \S+ -p p down --remove-orphans` failed"):
        Compose(("docker-compose",), "p").down(data=False)


def test_the_last_lines_of_an_unhealthy_container_are_kept(commands, tmp_path):
    commands("docker", "print('false', 'unhealthy')")
    said = """
import sys
if "logs" in sys.argv:
    print("started")
    sys.stderr.write("vm.max_map_count is too low\\n")
"""
    commands("docker-compose", RECORDED + said)
    with pytest.raises(StackError) as caught:
        Compose(("docker-compose",), "p").up("opensearch")
    assert "opensearch did not become healthy" in str(caught.value)
    assert "started" in str(caught.value)
    assert "vm.max_map_count is too low" in str(caught.value)
    logs = calls(tmp_path, "docker-compose")[-1][0]
    assert logs[-3:] == ["--tail", "20", "opensearch"]
