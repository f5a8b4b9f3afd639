"""Disks that fill up while a study runs."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import printed, running_mmlab, wait_for
from reference_study import assert_complete, run_study, write_study

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.long]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 32 MB; the test is skipped where none can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("this machine allows no disk to be mounted")
    yield folder
    # MLflow keeps the database open in this process.
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> None:
    """Leave no byte free."""
    with (disk / "ballast").open("ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


def test_a_full_disk_of_the_tracking_store(
    reference: dict[str, Any], disk: Path, tmp_path: Path
) -> None:
    """Results are kept on the other disk, and the database is not damaged."""
    write_study(tmp_path)
    uri = f"sqlite:///{disk}/mlflow.db"
    with running_mmlab(tmp_path, "run", "study.yaml", "--tracking-uri", uri) as driver:
        wait_for(tmp_path, driver, r"\[5/")
        fill(disk)
        assert driver.wait(timeout=300) == 75, printed(tmp_path)
    assert "could not be sent to" in printed(tmp_path)
    (disk / "ballast").unlink()
    with sqlite3.connect(disk / "mlflow.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()
    assert_complete(uri, reference, run_study(tmp_path, "--tracking-uri", uri))


def test_a_full_disk_of_what_is_still_to_be_sent(
    reference: dict[str, Any], disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results are kept in memory until the tracking store has them."""
    write_study(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(disk))
    with running_mmlab(tmp_path, "run", "study.yaml") as driver:
        wait_for(tmp_path, driver, r"\[5/")
        while driver.poll() is None:
            # What has been sent is removed, and leaves room.
            fill(disk)
            time.sleep(0.05)
        assert driver.returncode == 0, printed(tmp_path)
    assert "No space left on device): they are kept in memory" in printed(tmp_path)
    (disk / "ballast").unlink()
    assert_complete(f"sqlite:///{tmp_path}/mlflow.db", reference, run_study(tmp_path))
