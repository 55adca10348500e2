"""The images themselves, as `sam build` names them: what is in them, and what is not."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass

import pytest

BASE = "python:3.13-slim-trixie"
MEGABYTE = 1_000_000
MODEL = "/opt/model/model.gguf"


@dataclass(frozen=True)
class Image:
    function: str
    megabytes: int  # at most, over the base image and what is named below
    modules: tuple[str, ...]  # what the function imports when it is asked for something
    beside: str = ""  # a file that the limit does not count

    @property
    def tag(self) -> str:
        return f"{self.function}function:{self.function}"


AWS = ("boto3", "llamabda.adapters.jwks", "llamabda.adapters.dynamodb.users", "llamabda.adapters.emf")
INDEX = (
    *("opensearchpy", "requests_aws4auth", "llamabda.wiring_index", "llamabda.adapters.opensearch"),
    *("numpy", "onnxruntime", "tokenizers", "simsimd", "snowballstemmer", "llamabda.adapters.onnx"),
    *("llamabda.adapters.dynamodb.catalog", "llamabda.adapters.dynamodb.embeddings", "llamabda.adapters.s3"),
)
IMAGES = (
    Image(
        "auth",
        90,
        (
            *(*AWS, "argon2", "llamabda.adapters.argon2", "llamabda.adapters.kms"),
            *("llamabda_functions.auth.issuer", "llamabda.adapters.s3", "llamabda.adapters.public_address"),
        ),
    ),
    Image(
        "ingest",
        350,
        (
            *(*AWS, *INDEX, "kreuzberg", "semantic_text_splitter", "llamabda.adapters.sqs"),
            *("llamabda.adapters.kreuzberg", "llamabda.adapters.kreuzberg_language", "llamabda.deliveries"),
        ),
    ),
    Image(
        "ask",
        350,
        (
            *(*AWS, *INDEX, "llama_cpp", "jinja2", "llamabda.adapters.llama_cpp", "llamabda.adapters.openai"),
            "llamabda.adapters.onnx_reranker",
        ),
        beside=MODEL,
    ),
)
EACH = pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.function)

# Inside an image: what lies where a check looks. tests of the interpreter that is the base image's own are not ours.
LOOK = """
import json, os, shutil
folders = [os.path.join(place, one) for place, inner, _ in os.walk("/opt") for one in inner if one in ("tests", "test")]
caches = (os.path.expanduser("~root/.cache/pip"), "/.cache", "/tmp/pip-cache", "/build")
print(json.dumps({
    "uid": os.getuid(), "gid": os.getgid(),
    "compilers": [one for one in ("cc", "gcc", "g++", "c++", "clang", "cmake", "ninja") if shutil.which(one)],
    "caches": [one for one in caches if os.path.exists(one)],
    "lists": os.listdir("/var/lib/apt/lists") if os.path.isdir("/var/lib/apt/lists") else [],
    "tests": folders,
    "writable": [one for one in ("/opt", "/opt/llamabda", "/opt/packages") if os.access(one, os.W_OK)],
}))
"""


def docker(*command: str) -> str:
    done = subprocess.run(["docker", *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def python(image: Image, code: str, *options: str) -> str:
    """What a program prints in a fresh container of an image."""
    return docker("run", "--rm", "--network", "none", *options, "--entrypoint", "python", image.tag, "-c", code)


def size(tag: str) -> int:
    return int(docker("image", "inspect", "--format", "{{.Size}}", tag))


@EACH
def test_an_image_runs_as_nobody_and_holds_nothing_that_only_its_making_needs(image):
    found = json.loads(python(image, LOOK))
    assert (found["uid"], found["gid"]) == (10001, 10001)
    # numpy imports this one itself
    assert [one for one in found["tests"] if one != "/opt/packages/numpy/_core/tests"] == []
    assert {name: found[name] for name in ("compilers", "caches", "lists", "writable")} == {
        "compilers": [],
        "caches": [],
        "lists": [],
        "writable": [],
    }


def test_pip_left_no_cache_where_only_root_can_look():
    for image in IMAGES:
        listed = docker(
            *("run", "--rm", "--network", "none", "--user", "0:0", "--entrypoint", "python", image.tag, "-c"),
            "import os; places = os.path.expanduser('~root/.cache'), '/tmp'; "
            "print([one for one in places if os.path.isdir(one) and os.listdir(one)])",
        )
        assert listed.strip() == "[]", image.function


@EACH
def test_an_image_is_not_much_larger_than_what_it_stands_on(image):
    counted = size(image.tag) - size(BASE)
    if image.beside:
        counted -= int(python(image, f"import os; print(os.path.getsize({image.beside!r}))"))
    assert counted <= image.megabytes * MEGABYTE


@EACH
def test_every_module_that_a_function_needs_can_be_imported_in_its_image(image):
    modules = (f"llamabda_functions.{image.function}.app", "llamabda.wiring", "mangum", "awslambdaric", *image.modules)
    code = f"import importlib\nfor one in {modules!r}: importlib.import_module(one)\nprint('all')"
    assert python(image, code) == "all\n"


def test_accounts_need_no_model_library():
    heavy = ("numpy", "onnxruntime", "llama_cpp", "tokenizers", "kreuzberg", "opensearchpy")
    code = (
        "import sys, importlib.util, llamabda_functions.auth.app, llamabda.wiring, llamabda.adapters.kms\n"
        f"print([one for one in {heavy!r} if one in sys.modules or importlib.util.find_spec(one)])"
    )
    assert python(IMAGES[0], code) == "[]\n"


def processors() -> int:
    """How many the engine has; it refuses to give a container more."""
    return int(docker("info", "--format", "{{.NCPU}}"))


@EACH
@pytest.mark.parametrize(("limit", "threads"), [(1, 1), (2, 2), (1.7, 1), (0.5, 1)])
def test_threads_follow_the_processors_that_a_container_may_use(image, limit, threads):
    available = int(python(image, "import os; print(len(os.sched_getaffinity(0)))"))
    code = "from llamabda.cpu import available_cpus; print(available_cpus())"
    limit = min(limit, processors())
    assert int(python(image, code, "--cpus", str(limit))) == min(threads, available)


@pytest.mark.parametrize("limit", [1, 2])
def test_the_language_model_gets_as_many_threads(limit):
    ask = IMAGES[-1]
    available = int(python(ask, "import os; print(len(os.sched_getaffinity(0)))"))
    code = (
        "import llama_cpp; from llamabda import wiring_models\n"
        "context = wiring_models.load_generator()._engine._context\n"
        "print(llama_cpp.llama_n_threads(context), llama_cpp.llama_n_threads_batch(context))"
    )
    limit = min(limit, processors())
    threads = min(limit, available)
    assert python(ask, code, "--cpus", str(limit), "--memory", "2g") == f"{threads} {threads}\n"
