"""CPUs and memory by affinity and control groups, versions 1 and 2."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from mmlab.system import control_groups
from mmlab.system.memory import available_memory
from mmlab.system.threads import usable_cpus

GB = 2**30


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty mount; the process is in no group, has 8 CPUs and 32 GB."""
    monkeypatch.setattr(control_groups, "_MOUNT", tmp_path / "cgroup")
    monkeypatch.setattr(control_groups, "_OWN", tmp_path / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    memory = psutil.virtual_memory()._replace(available=32 * GB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    return tmp_path / "cgroup"


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_no_groups(mount: Path) -> None:
    assert usable_cpus() == 8
    assert available_memory() == 32 * GB


def test_version_2_takes_the_smallest_limit_of_all_levels(mount: Path) -> None:
    (mount.parent / "own").write_text("0::/slurm/job_1\n")
    write(mount / "slurm" / "job_1", cpu__max="max 100000\n", memory__max=f"{6 * GB}\n")
    statistics = f"anon 5\ninactive_file {GB}\n"
    write(mount / "slurm" / "job_1", memory__current=f"{4 * GB}\n", memory__stat=statistics)
    write(mount / "slurm", cpu__max="350000 100000\n", memory__max="max\n")
    assert usable_cpus() == 3
    assert available_memory() == 3 * GB


def test_version_1(mount: Path) -> None:
    (mount.parent / "own").write_text("4:memory:/job\n3:cpu,cpuacct:/job\n1:name=systemd:/\n0::/\n")
    write(mount / "cpu,cpuacct" / "job", cpu__cfs_quota_us="50000", cpu__cfs_period_us="100000")
    write(mount / "memory" / "job", memory__limit_in_bytes=str(2 * GB))
    write(mount / "memory" / "job", memory__usage_in_bytes=str(GB), memory__stat="cache 7\n")
    write(mount / "memory", memory__limit_in_bytes="9223372036854771712")
    write(mount / "memory", memory__usage_in_bytes=str(8 * GB))
    assert usable_cpus() == 1
    assert available_memory() == GB


def test_groups_of_a_container_are_at_the_root_of_its_mount(mount: Path) -> None:
    (mount.parent / "own").write_text("0::/docker/abc\n")
    write(mount, cpu__max="200000 100000", memory__max=str(GB), memory__current="0")
    assert usable_cpus() == 2
    assert available_memory() == GB


def test_affinity(mount: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert usable_cpus() == 1


def test_damaged_files_are_ignored(mount: Path) -> None:
    (mount.parent / "own").write_text("0::/\n")
    write(mount, cpu__max="", memory__max="much", memory__current="0")
    assert usable_cpus() == 8
    assert available_memory() == 32 * GB
