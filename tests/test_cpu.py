"""Processors: what affinity and cgroup quotas leave."""

from __future__ import annotations

import pytest

from llamabda.cpu import available_cpus, cpus_under


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


CASES = {
    "no cgroup at all": ({}, 4),
    "no quota": ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "max 100000\n"}, 4),
    "its own quota": ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "200000 100000\n"}, 2),
    "a parent's quota": (
        {
            "proc/self/cgroup": "0::/a/b/c\n",
            "sys/fs/cgroup/a/b/c/cpu.max": "max 100000\n",
            "sys/fs/cgroup/a/cpu.max": "300000 100000\n",
        },
        3,
    ),
    "the root of a container": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1),
    "a path outside the container": (
        {"proc/self/cgroup": "0::/../../x\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"},
        2,
    ),
    "less than one": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "58000 100000\n"}, 1),
    "almost three": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "295000 100000\n"}, 3),
    "more than affinity": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "900000 100000\n"}, 4),
    "version 1": (
        {
            "proc/self/cgroup": "5:memory:/d\n4:cpu,cpuacct:/d\n",
            "sys/fs/cgroup/cpu,cpuacct/d/cpu.cfs_quota_us": "200000\n",
            "sys/fs/cgroup/cpu,cpuacct/d/cpu.cfs_period_us": "100000\n",
        },
        2,
    ),
    "version 1 without a quota": (
        {
            "proc/self/cgroup": "4:cpu:/\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
        4,
    ),
    "nonsense": ({"proc/self/cgroup": "?\n0::/\n", "sys/fs/cgroup/cpu.max": "0 0 0\n"}, 4),
}


@pytest.mark.parametrize(("files", "expected"), CASES.values(), ids=CASES.keys())
def test_the_smallest_of_affinity_and_every_quota_above_us_counts(tmp_path, files, expected):
    write(tmp_path, files)
    assert cpus_under(tmp_path, affinity=4) == expected


def test_this_machine_has_at_least_one():
    assert available_cpus() >= 1
