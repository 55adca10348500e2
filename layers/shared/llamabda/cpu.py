"""How many processors this process may really use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

# A quota this little short of a whole processor counts as one. Otherwise quotas are rounded down: threads beyond the
# quota make llama.cpp several times slower, since the whole group is stopped while one thread waits for another.
SLACK = 0.1


def available_cpus() -> int:
    """Processors that affinity and the cgroup quota leave to this process; at least 1."""
    return cpus_under(Path("/"), _affinity())


def cpus_under(root: Path, affinity: int) -> int:
    """The same for the system whose /proc and /sys are below `root`."""
    limit = min((float(affinity), *_quotas(root)))
    return max(1, int(limit + SLACK))


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(root: Path) -> Iterator[float]:
    """Every quota, in processors, that holds for our cgroup: its own and those of the groups above it."""
    mount = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:  # version 2
            for base in (mount, mount / "unified"):
                for folder in _upwards(base, path):
                    yield from _quota(*_read(folder / "cpu.max").split()[:2])
        elif "cpu" in controllers.split(","):  # version 1
            for base in {mount / "cpu", mount / controllers}:
                for folder in _upwards(base, path):
                    quota = _read(folder / "cpu.cfs_quota_us").strip()
                    yield from _quota(quota, _read(folder / "cpu.cfs_period_us").strip())


def _upwards(base: Path, path: str) -> Iterator[Path]:
    """The folder of a cgroup and of each group above it, up to the mount."""
    inside = PurePosixPath(*(part for part in PurePosixPath(path).parts if part not in ("/", "..")))
    for group in (inside, *inside.parents):
        yield base / group


def _quota(quota: str = "", period: str = "") -> Iterator[float]:
    """`max` and -1 mean none."""
    if quota.isdecimal() and period.isdecimal() and int(quota) > 0 and int(period) > 0:
        yield int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii")
    except (OSError, UnicodeDecodeError):  # absent, or not readable from here: it says nothing
        return ""
