"""What the images are made of, and that they need nothing but /tmp to write to."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from benchmarks import cold_start
from scripts import tool_venv
from scripts.local import sam
from scripts.supply import audit, environment, sbom, secrets
from tests.e2e.test_images import BASE, EACH, IMAGES, MODEL, docker, python

READ_ONLY = ("--read-only", "--tmpfs", "/tmp:exec")
FUNCTIONS = {function.name: function for function in cold_start.FUNCTIONS}
PINNED = "python@sha256:" + "5a" * 32

# what each does when it is asked, without any other service
INGESTS = """
from pathlib import Path
import llamabda
from llamabda import wiring, wiring_models
text = wiring.extractor().extract((Path(llamabda.__file__).parent / "samples/garantia.pdf").read_bytes(), name="g.pdf")
vectors = wiring_models.load_embedder(wiring.wanted_model()).embed_documents([text[:500]])
print("garantia" in text.lower(), vectors.shape[0])
"""
ANSWERS = """
from llamabda import prompt, wiring, wiring_models
from llamabda.types import Deadline
vector = wiring_models.load_embedder(wiring.wanted_model()).embed_query("When does the office open?")
asked = prompt.build("When does the office open?", ["The office opens at eight in the morning."], language="en")
said = "".join(wiring_models.load_generator().generate(asked, max_tokens=16, deadline=Deadline.after(60)))
print(bool(said.strip()), vector.ndim)
"""
# in the SAM CLI's environment: what it would build each function of a template upon
BASES = """
import json, sys
from samcli.lib.providers.sam_function_provider import SamFunctionProvider
from samcli.lib.providers.sam_stack_provider import SamLocalStackProvider
stacks, _ = SamLocalStackProvider.get_stacks(sys.argv[1], parameter_overrides={"BaseImage": sys.argv[2]})
functions = SamFunctionProvider(stacks).get_all()
print(json.dumps([function.metadata["DockerBuildArgs"]["BASE_IMAGE"] for function in functions]))
"""


@EACH
def test_an_image_answers_requests_where_only_tmp_can_be_written(image):
    with cold_start.Container(FUNCTIONS[image.function], cold_start._emulator(), *READ_ONLY) as container:
        container.ask()  # it raises unless the status is the expected one
        container.ask()


@pytest.mark.parametrize(("image", "code"), [(IMAGES[1], INGESTS), (IMAGES[2], ANSWERS)], ids=["ingest", "ask"])
def test_models_and_files_are_read_where_only_tmp_can_be_written(image, code):
    assert python(image, code, *READ_ONLY, "--memory", "2g") == "True 1\n"


@EACH
def test_no_layer_and_no_step_holds_a_secret(image):
    assert secrets.of(image.tag, BASE) == []


@pytest.fixture(scope="module")
def bills() -> dict[str, dict]:
    return {image.function: sbom.of(image.tag, image.function) for image in IMAGES}


@EACH
def test_the_bill_of_an_image_is_valid_and_names_what_the_lock_pins(image, bills):
    bill = bills[image.function]
    sbom.validate(json.dumps(bill), environment.install())
    locks = [environment.ROOT / "locks" / f"{name}.txt" for name in (image.function, "llama-cpp")]
    pinned = frozenset().union(*(audit.pins(lock) for lock in locks))
    ours = {
        audit.pin(one["name"], one["version"])
        for one in bill["components"]
        if {"name": "llamabda:folder", "value": "opt/packages"} in one.get("properties", [])
    }
    assert ours
    assert ours - pinned == set()
    names = {one["name"] for one in bill["components"]}
    assert {"boto3", "mangum", "llamabda", "libc6"} <= names
    assert ("llama_cpp_python" in names) == (image.function == "ask")


def test_the_bill_has_the_hash_of_the_baked_model(bills):
    code = f"import hashlib; print(hashlib.file_digest(open({MODEL!r}, 'rb'), 'sha256').hexdigest())"
    digest = python(IMAGES[-1], code).strip()
    (found,) = [one for one in bills["ask"]["components"] if one["bom-ref"] == MODEL.lstrip("/")]
    assert (found["type"], found["hashes"]) == ("machine-learning-model", [{"alg": "SHA-256", "content": digest}])
    for function in ("ingest", "ask"):
        kinds = [one["type"] for one in bills[function]["components"] if one["bom-ref"].startswith("opt/cache/")]
        assert kinds == ["machine-learning-model"]


def test_the_auth_image_holds_no_model(bills):
    assert all(one["type"] != "machine-learning-model" for one in bills["auth"]["components"])


def test_a_base_named_by_its_digest_is_built_upon(tmp_path):
    """The engine's own name for an image that was never pulled is its id; one that was pulled has name@sha256."""
    digests = json.loads(docker("image", "inspect", "--format", "{{json .RepoDigests}}", BASE))
    base = digests[0] if digests else docker("image", "inspect", "--format", "{{.Id}}", BASE).strip()
    first = (environment.ROOT / "Dockerfile").read_text("utf-8").split("COPY", 1)[0]  # up to where files are needed
    (tmp_path / "Dockerfile").write_text(first)
    docker("build", "--quiet", "--build-arg", f"BASE_IMAGE={base}", str(tmp_path))


def test_sam_build_hands_the_base_on_as_a_parameter_names_it():
    template = environment.ROOT / "template.yaml"
    sam.install()
    command = [str(tool_venv.program("sam", "python")), "-c", BASES, str(template), PINNED]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(template).parent)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout.splitlines()[-1])) == {PINNED}
