"""SQLite's write-ahead log is used on local file systems alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from mmlab.system.file_systems import network_file_system
from mmlab.tracking import TrackingStore, store_checks
from mmlab.tracking.store_checks import set_journal_mode

Mounts = Callable[[dict[str, str]], None]


@pytest.fixture
def mounts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mounts]:
    """Replace the mounted file systems by the given ones: types by mount point."""

    def replace(types: dict[str, str]) -> None:
        parts = [SimpleNamespace(mountpoint=p, fstype=kind) for p, kind in types.items()]
        monkeypatch.setattr(psutil, "disk_partitions", lambda **_: parts)

    yield replace
    store_checks._warn_of_network.cache_clear()


def journal_mode(file: Path) -> str:
    with closing(sqlite3.connect(file)) as connection:
        return str(connection.execute("PRAGMA journal_mode").fetchone()[0])


def test_type_of_the_file_system_of_a_path(mounts: Mounts, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "local").mkdir(parents=True)
    (tmp_path / "link").symlink_to(data)
    mounts(
        {
            f"{data}/local": "xfs",
            "/": "ext4",
            str(data): "nfs4",
            f"{tmp_path}/da": "cifs",
            f"{tmp_path}/ssh": "fuse.sshfs",
            f"{tmp_path}/disk": "fuseblk",
            f"{tmp_path}/home": "autofs",
            f"{tmp_path}/home/": "lustre",
        }
    )
    expected = {
        "data/mlflow.db": "nfs4",
        "link/mlflow.db": "nfs4",
        "data/local/mlflow.db": "",
        "data2/mlflow.db": "",
        "ssh/a/b/mlflow.db": "fuse.sshfs",
        "disk/mlflow.db": "",
        "home/mlflow.db": "lustre",
        "mlflow.db": "",
    }
    assert {path: network_file_system(tmp_path / path) for path in expected} == expected


def test_the_real_file_systems_of_this_machine_are_read(tmp_path: Path) -> None:
    assert network_file_system(Path("/proc")) == ""
    assert network_file_system(tmp_path) in ("", "9p", "virtiofs", "nfs", "nfs4", "fuse.grpcfuse")


def test_a_new_store_keeps_a_write_ahead_log_only_on_a_local_file_system(
    mounts: Mounts, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    remote = tmp_path / "remote"
    remote.mkdir()
    mounts({"/": "ext4", str(remote): "nfs4"})
    file = remote / "mlflow.db"
    for _ in range(2):
        TrackingStore(f"sqlite:///{file}").initialise()
    assert journal_mode(file) == "delete"
    assert caplog.text.count("\n") == 1
    assert f"{file} is on a network file system (nfs4), where" in caplog.text
    assert "its journal mode is delete. For commands on" in caplog.text
    set_journal_mode(tmp_path / "local.db")
    assert journal_mode(tmp_path / "local.db") == "wal"
    assert caplog.text.count("\n") == 1


def test_an_existing_store_changes_its_mode_unless_another_process_has_it_open(
    mounts: Mounts,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(store_checks, "_TIMEOUT", 0.1)
    file = tmp_path / "mlflow.db"
    mounts({"/": "ext4"})
    set_journal_mode(file)
    mounts({"/": "ext4", str(tmp_path): "fuse.sshfs"})
    store = TrackingStore(f"sqlite:///{file}")
    with closing(sqlite3.connect(file)) as other:
        other.execute("PRAGMA schema_version").fetchone()
        store.require_writable()
        assert journal_mode(file) == "wal"
        assert "its journal mode is wal, because another process has it open. For" in caplog.text
    store.require_writable()
    assert journal_mode(file) == "delete"
    assert "its journal mode is delete. For" in caplog.text
