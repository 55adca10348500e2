"""Building the llama.cpp wheel: what can be told without compiling it."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import os
import subprocess
import sys
import zipfile

import pytest

from tests.conftest import ROOT


def _load():
    spec = importlib.util.spec_from_file_location("build_wheel", ROOT / "llama-layer-build" / "build_wheel.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build_wheel = _load()


@pytest.mark.parametrize("machine", ["x86_64", "AMD64", "aarch64", "arm64", "riscv64"])
@pytest.mark.parametrize("system", ["Linux", "Darwin"])
def test_no_wheel_is_built_for_the_builders_own_processor(system, machine):
    assert "-DGGML_NATIVE=OFF" in build_wheel.cmake_flags(system, machine)


X86 = ("SSE42=ON", "AVX=ON", "AVX2=ON", "FMA=ON", "F16C=ON", "BMI2=ON")
ARM = ("CPU_ARM_ARCH=armv8.2-a+dotprod",)


@pytest.mark.parametrize(
    ("system", "machine", "asked"),
    [
        ("Linux", "x86_64", X86),
        ("Linux", "AMD64", X86),
        ("Linux", "aarch64", ARM),
        ("Linux", "arm64", ARM),
        ("Linux", "riscv64", ()),
        ("Darwin", "arm64", ()),
        ("Darwin", "x86_64", ()),
    ],
)
def test_each_processor_asks_for_its_fast_kernels_and_for_nothing_else(system, machine, asked):
    flags = [flag for flag in build_wheel.cmake_flags(system, machine) if flag.startswith("-DGGML_")]
    assert flags == ["-DGGML_NATIVE=OFF", *(f"-DGGML_{one}" for one in asked)]


@pytest.mark.parametrize(("system", "unity"), [("Linux", True), ("Darwin", False)])
def test_libraries_are_compiled_as_one_file_where_that_was_tried(system, unity):
    flags = build_wheel.cmake_flags(system, "arm64")
    assert ("-DCMAKE_UNITY_BUILD=ON" in flags) is unity
    assert any("without_common.cmake" in flag for flag in flags) is unity


def test_avx512_is_never_asked_for():
    assert not any("AVX512" in flag for flag in build_wheel.cmake_flags("Linux", "x86_64"))


def test_the_key_differs_by_processor_system_and_pinned_version(tmp_path, monkeypatch):
    keys = {build_wheel.wheel_key(*where) for where in [("Linux", "x86_64"), ("Linux", "aarch64"), ("Darwin", "arm64")]}
    lock = tmp_path / "llama-cpp.txt"
    lock.write_text("llama-cpp-python==9.9.9 --hash=sha256:00\n")
    monkeypatch.setattr(build_wheel, "SOURCE_LOCK", lock)
    assert "9.9.9" in build_wheel.wheel_key()
    assert len({*keys, build_wheel.wheel_key("Linux", "x86_64")}) == 4


def test_the_key_does_not_depend_on_where_the_checkout_lies(tmp_path, monkeypatch):
    here = build_wheel.wheel_key()
    monkeypatch.setattr(build_wheel, "HERE", tmp_path)
    monkeypatch.setattr(build_wheel, "WITHOUT_COMMON", tmp_path / "without_common.cmake")
    (tmp_path / "without_common.cmake").write_bytes((ROOT / "llama-layer-build/without_common.cmake").read_bytes())
    assert build_wheel.wheel_key() == here


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"LLAMABDA_CACHE": "/a", "XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/a"),
        ({"XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/b/llamabda"),
        ({"HOME": "/c"}, "/c/.cache/llamabda"),
    ],
)
def test_the_cache_is_where_the_environment_says(monkeypatch, environment, expected):
    for name in ("LLAMABDA_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert str(build_wheel.cache_folder()) == expected


def kept(cache, libc):
    """A wheel in the cache that was built with that C library."""
    folder = cache / "wheels" / f"{build_wheel.wheel_key()}@{libc}"
    folder.mkdir(parents=True)
    path = folder / "llama_cpp_python-1-py3-none-any.whl"
    path.write_bytes(libc.encode())
    return path


@pytest.fixture
def glibc(monkeypatch):
    """Of this system, as the script sees it."""
    monkeypatch.setattr(build_wheel, "c_library", lambda: ("glibc", (2, 36)))


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        (("glibc-2.36",), "glibc-2.36"),
        (("glibc-2.31",), "glibc-2.31"),
        (("glibc-2.4",), "glibc-2.4"),  # older than 2.36: the numbers are no decimals
        (("glibc-2.31", "glibc-2.35", "glibc-2.41"), "glibc-2.35"),
        (("glibc-2.41",), None),
        (("glibc-3.0",), None),
        (("musl-1.2",), None),
        ((), None),
    ],
)
def test_a_wheel_serves_the_c_library_it_was_built_with_and_later_ones(tmp_path, glibc, there, taken):
    paths = {libc: kept(tmp_path, libc) for libc in there}
    assert build_wheel.find(tmp_path) == paths.get(taken)


def test_what_else_a_build_leaves_in_the_cache_is_no_wheel(tmp_path, glibc):
    wheels = tmp_path / "wheels"
    (wheels / f"{build_wheel.wheel_key()}@glibc-2.30").mkdir(parents=True)  # empty
    (wheels / f"{build_wheel.wheel_key()}@glibc-2.36.lock").touch()
    assert build_wheel.find(tmp_path) is None
    path = kept(tmp_path, "glibc-2.36")
    assert build_wheel.find(tmp_path) == path


def test_a_wheel_of_another_key_is_not_taken(tmp_path, glibc, monkeypatch):
    kept(tmp_path, "glibc-2.36")
    monkeypatch.setitem(build_wheel.ARCHITECTURE_FLAGS, "x86_64", ("AVX=ON",))
    monkeypatch.setitem(build_wheel.ARCHITECTURE_FLAGS, "aarch64", ())
    assert build_wheel.find(tmp_path) is None


def test_a_wheel_in_the_cache_is_used_without_a_compiler(tmp_path, monkeypatch, glibc):
    monkeypatch.setenv("PATH", str(tmp_path))
    path = kept(tmp_path, "glibc-2.36")
    assert build_wheel.wheel(tmp_path, pytest.fail) == path


def script(*arguments, **environment):
    command = [sys.executable, str(ROOT / "llama-layer-build" / "build_wheel.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})


def here():
    name, number = build_wheel.c_library()
    return f"{name}-{'.'.join(map(str, number))}"


def test_find_prints_the_wheel_and_builds_nothing(tmp_path):
    none = script("--find", "--cache", tmp_path, PATH=str(tmp_path))
    assert (none.returncode, none.stdout, none.stderr) == (1, "", "")
    assert not list(tmp_path.iterdir())
    path = kept(tmp_path, here())
    found = script("--find", LLAMABDA_CACHE=str(tmp_path))
    assert (found.returncode, found.stdout, found.stderr) == (0, f"{path}\n", "")


def test_out_copies_the_wheel_into_a_folder_that_it_makes(tmp_path):
    path = kept(tmp_path / "cache", here())
    out = tmp_path / "for" / "an image"
    done = script("--cache", tmp_path / "cache", "--out", out)
    assert (done.returncode, done.stdout) == (0, f"{out / path.name}\n")
    assert (out / path.name).read_bytes() == path.read_bytes()
    assert path.exists()


def test_without_a_compiler_the_script_ends_with_an_error_and_no_trace(tmp_path):
    done = script("--cache", tmp_path, PATH=str(tmp_path), CC="", CXX="")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no C compiler" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_compiler_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(build_wheel.BuildError, match=r"no C compiler(.|\n)*apt-get install g\+\+"):
        build_wheel.wheel(tmp_path, lambda line: None)


def compiler(folder, script):
    path = folder / "compiler"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_a_compiler_without_headers_is_told_apart(tmp_path, monkeypatch):
    monkeypatch.setenv("CC", compiler(tmp_path, "echo 'stdlib.h: No such file' >&2; exit 1"))
    with pytest.raises(build_wheel.BuildError, match=r"headers(.|\n)*stdlib\.h: No such file"):
        build_wheel.check_compiler()


def test_a_failed_build_shows_the_compilers_last_words(tmp_path):
    script = "echo '[1/61] c++ a.cpp'; echo 'a.cpp:1: error: no such thing'; echo 'ERROR: connection'; exit 1"
    said = []
    with pytest.raises(build_wheel.BuildError, match=r"could not be built(.|\n)*error: no such thing"):
        build_wheel._retried([compiler(tmp_path, script)], "llama.cpp", said.append)
    assert said == ["building llama.cpp, about 2-4 minutes, done once: 1/61 files"]


def test_an_unreachable_registry_is_tried_again_and_then_named(tmp_path, monkeypatch):
    monkeypatch.setattr(build_wheel, "RETRY_SECONDS", (0, 0))
    script = f"echo run >> {tmp_path}/runs; echo 'ERROR: Connection refused'; exit 1"
    with pytest.raises(build_wheel.BuildError, match="registry cannot be reached"):
        build_wheel._retried([compiler(tmp_path, script)], "the source", lambda line: None)
    assert (tmp_path / "runs").read_text().split() == ["run"] * 3


FILES = {
    "include/llama.h": b"h",
    "lib/libllama.so": b"L",
    "lib/libllama.so.0.5.0": b"L",
    "lib/cmake/llama/llama-config.cmake": b"c",
    "llama_cpp/__init__.py": b"import this",
    "llama_cpp/lib/libllama.so": b"L" * 50,
    "llama_cpp/lib/libllama.so.0": b"L" * 50,
    "llama_cpp/lib/libllama.so.0.5.0": b"L" * 50,
    "llama_cpp/lib/libggml-cpu.so": b"G",
    "llama_cpp/lib/libggml-cpu.so.0": b"G",
    "llama_cpp/lib/libggml-cpu.so.0.25.3": b"G",
    "llama_cpp/lib/libggml.so": b"B",
    "llama_cpp/lib/libggml.so.0": b"B",
    "llama_cpp/lib/libggml.so.0.25.3": b"B",
    "llama_cpp/lib/libplain.so": b"P",
    "llama_cpp_python-1.dist-info/WHEEL": b"Wheel-Version: 1.0",
    "llama_cpp_python-1.dist-info/RECORD": b"stale",
}


def test_a_slimmed_wheel_holds_each_library_once_and_a_record_that_is_right(tmp_path):
    source = tmp_path / "llama_cpp_python-1-py3-none-any.whl"
    with zipfile.ZipFile(source, "w") as wheel:
        for name, data in FILES.items():
            wheel.writestr(name, data)
    slimmed = build_wheel.slim(source, tmp_path / "slim")
    assert slimmed.name == source.name
    with zipfile.ZipFile(slimmed) as wheel:
        names = wheel.namelist()
        record = wheel.read("llama_cpp_python-1.dist-info/RECORD").decode()
        rows = [line.rsplit(",", 2) for line in record.splitlines()]
        assert sorted(row[0] for row in rows) == sorted(names)
        for name, digest, size in rows[:-1]:
            data = wheel.read(name)
            expected = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
            assert (data, digest, size) == (FILES[name], f"sha256={expected}", str(len(data)))
    assert rows[-1] == ["llama_cpp_python-1.dist-info/RECORD", "", ""]
    assert sorted(name for name in names if "/lib/" in name) == [
        "llama_cpp/lib/libggml-cpu.so.0",
        "llama_cpp/lib/libggml.so.0",
        "llama_cpp/lib/libllama.so",
        "llama_cpp/lib/libplain.so",
    ]
    assert not any(name.startswith(("lib/", "include/")) for name in names)


def test_a_wheel_whose_library_cannot_be_loaded_is_found_out(tmp_path):
    path = tmp_path / "a.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("llama_cpp/lib/libllama.so", b"no library")
    assert not build_wheel.loads(path, tmp_path / "check")
    assert os.listdir(tmp_path / "check")


@pytest.mark.skipif(sys.platform != "linux", reason="the lock's tools are checked on Linux")
def test_every_pinned_tool_has_hashes():
    for lock in (build_wheel.SOURCE_LOCK, build_wheel.TOOLS_LOCK):
        text = lock.read_text()
        assert text.count("==") <= text.count("--hash=sha256:")
        assert "://" not in text
