"""Run mmlab in subprocesses."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

#: Addresses that other machines cannot reach.
LOOPBACK = {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
SMALL = ["--dataset", "pbmc68k_reduced", "--n-markers", "10", "--replicates", "1"]


def mmlab_command(*arguments: str) -> list[str]:
    """Return the command line of mmlab in this Python."""
    return [sys.executable, "-c", "from mmlab.cli import main; main()", *arguments]


def run_mmlab(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run mmlab in a folder and wait until it ends."""
    return subprocess.run(
        mmlab_command(*arguments), cwd=folder, capture_output=True, text=True, timeout=500
    )


@contextmanager
def running_mmlab(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start mmlab with its output in ``folder/stderr``; kill it at the end of the block."""
    with (folder / "stderr").open("w") as output:
        driver = subprocess.Popen(
            mmlab_command(*arguments), cwd=folder, stdout=output, stderr=output, text=True
        )
        try:
            yield driver
        finally:
            driver.kill()
            driver.wait()


def printed(folder: Path) -> str:
    """Return what a command started by ``running_mmlab`` has printed so far."""
    return (folder / "stderr").read_text()


def wait_until(condition: Callable[[], bool], driver: subprocess.Popen[str], folder: Path) -> None:
    """Wait until something holds while a command started by ``running_mmlab`` runs."""
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline, printed(folder)
        assert driver.poll() is None, printed(folder)
        time.sleep(0.02)


def wait_for(folder: Path, driver: subprocess.Popen[str], pattern: str) -> None:
    """Wait until a running command prints a line that matches a regular expression."""
    wait_until(lambda: bool(re.search(pattern, printed(folder))), driver, folder)


def keep_ray_token() -> None:
    """Set the token of Ray for the rest of the process, which never takes a second one."""
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def ray_actors(driver: int) -> list[psutil.Process]:
    """Return the actors that a process started. Ray gives them another title for every call."""
    titles = ("ray::ResourceTrainable", "ray::SearchActor", "ray::ComparisonActor")
    actors = []
    for process in psutil.Process(driver).children(recursive=True):
        with suppress(psutil.Error):  # it has ended
            if " ".join(process.cmdline()).startswith(titles):
                actors.append(process)
    return actors


def ray_process(driver: int, name: str) -> psutil.Process:
    """Return the process of Ray with this name, such as raylet, that a process started."""
    children = psutil.Process(driver).children(recursive=True)
    return next(process for process in children if process.name() == name)


def tune(folder: Path, *arguments: str) -> dict[str, Any]:
    """Run ``mmlab tune --json`` and return its JSON document."""
    done = run_mmlab(folder, "tune", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    content: dict[str, Any] = json.loads(done.stdout)
    return content


def listening_sockets(driver: int) -> set[tuple[str, str]]:
    """Return (process, address) of all TCP sockets on which a process or its children listen."""
    found = set()
    for process in [psutil.Process(driver), *psutil.Process(driver).children(recursive=True)]:
        try:
            for connection in process.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    found.add((process.name(), connection.laddr.ip))
        except psutil.Error:  # the process has ended
            continue
    return found
