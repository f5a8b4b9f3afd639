"""Temporary folders of drivers: processes in them end with their driver, and only then."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from mmlab.system.driver_folder import driver_folder, end_leftovers

#: A driver that prints its folder and the id of a process of it, which overwrites its command line
#: as a worker of Ray does: only its log tells where it belongs.
DRIVER = """
import subprocess, sys, time
from mmlab.system.driver_folder import driver_folder
with driver_folder() as folder:
    log = (folder / "worker.log").open("w")
    worker = subprocess.Popen(["sleep", "1000"], stdout=log, stderr=log, start_new_session=True)
    print(folder, worker.pid, flush=True)
    time.sleep(1000)
"""


@pytest.fixture
def driver() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", DRIVER], stdout=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.communicate()


def test_processes_of_a_killed_driver_are_ended_and_its_folder_is_removed(
    driver: subprocess.Popen[str],
) -> None:
    assert driver.stdout is not None
    name, pid = driver.stdout.readline().split()
    folder, worker = Path(name), psutil.Process(int(pid))
    with (folder / "worker.log").open() as log:
        reader = subprocess.Popen(["sleep", "1000"], stdin=log)
    try:
        end_leftovers()
        assert worker.is_running(), "the driver is alive"
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
        assert worker.is_running()
        end_leftovers()
        worker.wait(timeout=10)
        assert not folder.exists()
        assert reader.poll() is None, "a process that only reads a log is another program"
    finally:
        reader.kill()
        reader.wait()


def test_folder_of_another_user_and_without_a_lock_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folders = Path("/tmp") / f"mmray-test-{os.getpid()}", Path("/tmp") / f"mmray-own-{os.getpid()}"
    try:
        for folder in folders:
            folder.mkdir()
        (folders[0] / "lock").touch()
        monkeypatch.setattr("os.getuid", lambda: 12345)
        end_leftovers()
        assert folders[0].exists()
        monkeypatch.undo()
        end_leftovers()
        assert not folders[0].exists()
        assert folders[1].exists()
    finally:
        for folder in folders:
            if folder.exists():
                folder.rmdir()


def test_folder_and_its_processes_end_with_the_block() -> None:
    with driver_folder() as folder:
        assert (folder / "lock").exists()
        assert folder.stat().st_mode & 0o077 == 0
        with (folder / "worker.log").open("w") as log:
            worker = subprocess.Popen(["sleep", "1000"], stdout=log)
    worker.wait(timeout=10)
    assert not psutil.pid_exists(worker.pid)
    assert not folder.exists()
