#!/usr/bin/env python3
"""Builds the llama-cpp-python wheel for the target processor, once, and keeps it in a cache.

    python3 llama-layer-build/build_wheel.py [--out FOLDER]

prints the wheel's path. Only the standard library is used. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import base64
import csv
import fcntl
import hashlib
import io
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
LOCKS = HERE.parent / "locks"
SOURCE_LOCK = LOCKS / "llama-cpp.txt"
TOOLS_LOCK = LOCKS / "llama-build.txt"
WITHOUT_COMMON = HERE / "without_common.cmake"

Say = Callable[[str], None]


class BuildError(Exception):
    """The wheel cannot be made; the message says what is missing."""


# Never "native": a wheel built so dies with "illegal instruction" on a smaller processor than the builder's. x86_64 is
# what AWS Lambda guarantees and every x86 since 2013 has; arm64 without native sets no -march, so dot products (in
# every Graviton since the second, and in Apple's) are asked for.
ARCHITECTURE_FLAGS: dict[str, tuple[str, ...]] = {
    "x86_64": ("SSE42=ON", "AVX=ON", "AVX2=ON", "FMA=ON", "F16C=ON", "BMI2=ON"),
    "aarch64": ("CPU_ARM_ARCH=armv8.2-a+dotprod",),
}
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}  # other names of the same

RETRY_SECONDS = (3, 10)


def cmake_flags(system: str, machine: str) -> tuple[str, ...]:
    """What cmake is told on a system ("Linux", "Darwin") and processor (as platform.machine() names it)."""
    flags = ["-DLLAVA_BUILD=OFF", "-DGGML_NATIVE=OFF"]
    if system != "Linux":
        return tuple(flags)  # Apple's builds choose their own kernels, Metal among them
    # One file of each library instead of hundreds: a third of the time. llama.cpp's "common" library does not
    # compile so, and nothing here uses it.
    flags += [f"-DGGML_{flag}" for flag in ARCHITECTURE_FLAGS.get(MACHINES.get(machine.lower(), machine.lower()), ())]
    return (*flags, "-DCMAKE_UNITY_BUILD=ON", f"-DCMAKE_PROJECT_llama.cpp_INCLUDE={WITHOUT_COMMON}")


def version() -> str:
    found = re.search(r"^llama-cpp-python==(\S+)", SOURCE_LOCK.read_text("ascii"), re.MULTILINE)
    if found is None:
        raise BuildError(f"{SOURCE_LOCK} does not pin llama-cpp-python")
    return found[1]


def cache_folder() -> Path:
    """`LLAMABDA_CACHE`, else `llamabda` below `XDG_CACHE_HOME` or ~/.cache."""
    given = os.environ.get("LLAMABDA_CACHE")
    if given:
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "llamabda"


def wheel_key(system: str = "", machine: str = "") -> str:
    """Names everything that the wheel depends on; wheels of different keys must not be mixed."""
    system, machine = system or platform.system(), machine or platform.machine()
    # not where this checkout lies: the wheel serves them all
    flags = [flag.replace(str(HERE), "") for flag in cmake_flags(system, machine)]
    files = [path.read_text("ascii") for path in (SOURCE_LOCK, TOOLS_LOCK, WITHOUT_COMMON)]
    parts = (*files, *flags, system, machine)
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
    return f"llama_cpp_python-{version()}-{system}-{machine}-{digest}".lower()


def c_library() -> tuple[str, tuple[int, ...]]:
    """Name and version of this system's; a wheel runs with the one it was built with, and with later ones."""
    name, number = platform.libc_ver()
    return name, tuple(int(part) for part in re.findall(r"\d+", number))


def find(cache: Path) -> Path | None:
    """The wheel, when it was built before, on this system or on an older one; of several the one of the newest."""
    name, ours = c_library()
    fit = []
    for folder in (cache / "wheels").glob(f"{wheel_key()}@*/"):
        libc, _, number = folder.name.rpartition("@")[2].partition("-")
        built_with = tuple(int(part) for part in re.findall(r"\d+", number))
        if libc == name and built_with <= ours:
            fit += [(built_with, path) for path in folder.glob("*.whl")]
    return max(fit)[1] if fit else None


def wheel(cache: Path, say: Say) -> Path:
    """The wheel, built if need be, which takes minutes. BuildError when it cannot be."""
    found = find(cache)
    if found:
        return found
    name, number = c_library()
    folder = cache / "wheels" / f"{wheel_key()}@{name}-{'.'.join(map(str, number))}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _lock(folder.with_name(f"{folder.name}.lock"), say):
        found = find(cache)  # another run may have built it meanwhile
        if found:
            return found
        check_compiler()
        with tempfile.TemporaryDirectory(prefix="llamabda-build-") as scratch:
            built = _build(Path(scratch), say)
            slimmed = slim(built, Path(scratch) / "slim") if platform.system() == "Linux" else built
            chosen = slimmed if loads(slimmed, Path(scratch) / "check") else built
            partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder.parent))
            shutil.copy2(chosen, partial / built.name)
            partial.chmod(0o755)
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
    return folder / built.name


@contextmanager
def _lock(path: Path, say: Say) -> Iterator[None]:
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say("waiting for another build of llama.cpp to end")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


# -- the compiler


def check_compiler() -> None:
    """BuildError, saying what to install, when there is no C or C++ compiler that finds its headers."""
    programs = {"C": ("CC", ("cc", "gcc", "clang"), "c"), "C++": ("CXX", ("c++", "g++", "clang++"), "cpp")}
    sources = {"C": "#include <stdlib.h>\n", "C++": "#include <vector>\n#include <cstdlib>\n"}
    for language, (variable, names, suffix) in programs.items():
        given = os.environ.get(variable)
        command = given.split() if given else [next((n for n in names if shutil.which(n)), "")]
        if not shutil.which(command[0]):
            tried = given or ", ".join(names)
            raise BuildError(
                f"llama.cpp has to be compiled, and there is no {language} compiler (looked for {tried}).\n{INSTALL}"
            )
        with tempfile.TemporaryDirectory(prefix="llamabda-check-") as folder:
            source = Path(folder) / f"check.{suffix}"
            source.write_text(sources[language] + "int main(void) { return 0; }\n")
            done = subprocess.run(
                [*command, str(source), "-o", str(source.with_suffix(".out"))],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                raise BuildError(
                    f"the {language} compiler {command[0]} cannot build a program of one line: its headers "
                    f"or libraries seem to be missing:\n{_last(done.stderr.splitlines(), 6)}\n{INSTALL}"
                )


INSTALL = (
    "Install one: `apt-get install g++` on Debian and Ubuntu, `dnf install gcc-c++` on Fedora, "
    "`xcode-select --install` on macOS."
)


# -- building


def _build(scratch: Path, say: Say) -> Path:
    say("preparing the build tools for llama.cpp (cmake, ninja: some 30 MB)")
    tools = scratch / "venv"
    _run([sys.executable, "-m", "venv", str(tools)], "a virtual environment for the build")
    pip = [str(tools / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    _retried(
        [*pip, "install", "--quiet", "--require-hashes", "--no-deps", "--only-binary", ":all:", "-r", str(TOOLS_LOCK)],
        "the build tools",
        say,
    )
    out = scratch / "out"
    environment = {
        **os.environ,
        "CMAKE_ARGS": " ".join(f"'{flag}'" if " " in flag else flag for flag in cmake_flags(*_here())),
        "PATH": os.pathsep.join([str(tools / "bin"), os.environ.get("PATH", "")]),
        "CMAKE_GENERATOR": "Ninja",
    }
    say("downloading llama.cpp's source (77 MB), then building it: about 2-4 minutes on two processors, done once")
    # not pip's own cache: it would hand out a wheel that was built with other flags
    command = [*pip, "wheel", "-v", "--no-cache-dir", "--no-build-isolation", "--no-deps", "--require-hashes"]
    _retried([*command, "-w", str(out), "-r", str(SOURCE_LOCK)], "llama.cpp", say, environment)
    return next(out.glob("*.whl"))


def _here() -> tuple[str, str]:
    return platform.system(), platform.machine()


def _run(command: list[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"{what} could not be made:\n{_last((done.stdout + done.stderr).splitlines(), 8)}")


STEP = re.compile(r"\[(\d+)/(\d+)\]")
# what pip and its transport say when the other side does not answer
_TROUBLE = re.compile(r"WARNING|ERROR|Error")
_TRANSPORT = re.compile(
    r"connection|timed? ?out|temporary failure|name or service|max retries|certificate|proxy|could not fetch",
    re.IGNORECASE,
)


def unreachable(lines: list[str]) -> bool:
    """Whether pip failed because the registry did not answer, by what it said."""
    return any(_TROUBLE.search(line) and _TRANSPORT.search(line) for line in lines)


def telling(lines: list[str]) -> list[str]:
    """The lines that say what went wrong, without the compiler's command lines."""
    errors = [line for line in lines if re.search(r"error|fatal|killed|not found|missing", line, re.IGNORECASE)]
    return [line[:400] for line in errors or lines]


def _retried(command: list[str], what: str, say: Say, environment: dict[str, str] | None = None) -> None:
    """Runs pip, a few times when the registry does not answer."""
    for pause in (*RETRY_SECONDS, None):
        code, lines = _watched(command, say, environment)
        if code == 0:
            return
        compiled = any(STEP.search(line) for line in lines)
        silent = not compiled and unreachable(lines)
        if silent and pause is not None:
            say(f"the package registry does not answer, trying again in {pause} s")
            time.sleep(pause)
            continue
        if silent:
            raise BuildError(
                f"{what} could not be downloaded: the package registry cannot be reached. Check the network and the "
                f"settings of pip (index, proxy, certificates). pip's last lines:\n{_last(telling(lines), 4)}"
            )
        raise BuildError(f"{what} could not be built. The last lines:\n{_last(telling(lines), 15)}")


def _watched(command: list[str], say: Say, environment: dict[str, str] | None) -> tuple[int, list[str]]:
    """Runs a command, tells how far it is, and keeps what it said."""
    lines: list[str] = []
    told = time.monotonic()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip())
            step = STEP.search(line)
            if step and (time.monotonic() - told > 2 or step[1] in ("1", step[2])):
                told = time.monotonic()
                say(f"building llama.cpp, about 2-4 minutes, done once: {step[1]}/{step[2]} files")
    return process.returncode, lines


def _last(lines: list[str], count: int) -> str:
    return "\n".join(f"    {line}" for line in lines[-count:])


# -- slimming

LIBRARY = re.compile(r"llama_cpp/lib/(lib[\w-]+\.so)((?:\.\d+)*)$")
# The Python code opens these by their plain names; what libraries need of one another carries one version number.
OPENED = {"libllama.so"}


def needed(names: list[str]) -> list[str]:
    """Of a Linux wheel's files those that are used: each library once, and no headers or build files."""
    present = set(names)
    kept = []
    for name in names:
        if not name.startswith("llama_cpp"):  # a second copy of the libraries, headers, cmake and pkg-config files
            continue
        found = LIBRARY.match(name)
        if found is None:
            kept.append(name)
            continue
        plain, numbers = found[1], found[2]
        folder = name[: -len(plain + numbers)]
        versioned = any(LIBRARY.match(other) and other.startswith(f"{folder}{plain}.") for other in present)
        wanted = 0 if plain in OPENED or not versioned else 1
        if numbers.count(".") == wanted:
            kept.append(name)
    return kept


def slim(source: Path, folder: Path) -> Path:
    """The same wheel in `folder` with only what is needed, its RECORD rewritten."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / source.name
    with zipfile.ZipFile(source) as whole, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as small:
        names = [name for name in whole.namelist() if not name.endswith("/")]
        record = next(name for name in names if name.endswith(".dist-info/RECORD"))
        rows = []
        for name in needed(names):
            if name == record:
                continue
            data = whole.read(name)
            small.writestr(whole.getinfo(name), data, zipfile.ZIP_DEFLATED)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode("ascii")
            rows.append((name, f"sha256={digest}", str(len(data))))
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([*rows, (record, "", "")])
        small.writestr(whole.getinfo(record), text.getvalue(), zipfile.ZIP_DEFLATED)
    return target


def loads(path: Path, folder: Path) -> bool:
    """Whether the wheel's library can be opened by this system's loader, with all that it needs."""
    with zipfile.ZipFile(path) as whole:
        whole.extractall(folder)
    libraries = [folder / "llama_cpp" / "lib" / f"libllama.{suffix}" for suffix in ("so", "dylib")]
    library = next((library for library in libraries if library.exists()), None)
    if library is None:
        return False
    code = "import ctypes, sys; ctypes.CDLL(sys.argv[1]).llama_backend_init()"
    return subprocess.run([sys.executable, "-c", code, str(library)], capture_output=True, check=False).returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Builds the llama-cpp-python wheel, once, and prints its path.")
    parser.add_argument("--cache", type=Path, default=None, help="where wheels are kept (default: ~/.cache/llamabda)")
    parser.add_argument("--out", type=Path, default=None, help="also copy the wheel into this folder")
    parser.add_argument("--find", action="store_true", help="build nothing: exit code 1 when there is no wheel yet")
    arguments = parser.parse_args()
    if arguments.find:
        found = find(arguments.cache or cache_folder())
        print(found or "", end="\n" if found else "")
        return 0 if found else 1
    try:
        path = wheel(arguments.cache or cache_folder(), lambda line: print(line, file=sys.stderr, flush=True))
    except (BuildError, OSError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        path = Path(shutil.copy2(path, arguments.out))
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
