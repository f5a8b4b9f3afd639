"""CPUs and memory that the control groups of this process allow (containers, Kubernetes, SLURM)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

#: Where the control groups are mounted, and where a process finds its own.
_MOUNT, _OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def cpu_quotas() -> Iterator[float]:
    """Yield the CPU quotas of the control groups, versions 2 and 1; they may be fractions."""
    for folder in _groups(""):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        if quota.isdecimal() and period.isdecimal():
            yield int(quota) / int(period)
    for folder in _groups("cpu"):
        quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        if quota.isdecimal() and period.isdecimal():
            yield int(quota) / int(period)


def free_memory() -> Iterator[float]:
    """Yield the bytes that the memory limits of the control groups leave, versions 2 and 1.

    Cached files count as free, as the system drops them when memory is needed.
    """
    names = {
        "": ("memory.max", "memory.current", "inactive_file"),
        "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    }
    for controller, (limit_file, used_file, cached_key) in names.items():
        for folder in _groups(controller):
            limit, used = _read(folder / limit_file), _read(folder / used_file)
            if limit.isdecimal() and used.isdecimal():
                statistics = dict(
                    line.split(maxsplit=1)
                    for line in _read(folder / "memory.stat").splitlines()
                    if " " in line
                )
                yield float(int(limit) - int(used) + int(statistics.get(cached_key, 0)))


def _groups(controller: str) -> Iterator[Path]:
    """Yield the folders of this process's control group and of those above it.

    ``controller`` is that of a hierarchy of version 1; the one of version 2 has none. In a
    container, the paths of its groups may be those of the host: only the mount's root exists then.
    """
    for line in _read(_OWN).splitlines():
        _, controllers, path = line.split(":", 2)
        if controller not in controllers.split(","):
            continue
        root = _MOUNT / controllers if controller else _MOUNT
        if not root.is_dir() and controller:
            root = _MOUNT / controller
        group = root / path.lstrip("/")
        yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(root))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
