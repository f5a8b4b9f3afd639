"""mmlab in processes of its own, and servers for it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SMALL = ["--dataset", "pbmc68k_reduced", "--n-markers", "10", "--replicates", "1"]


def mmlab_command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from mmlab.cli import main; main()", *arguments]


def run_mmlab(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        mmlab_command(*arguments), cwd=folder, capture_output=True, text=True, timeout=500
    )


@contextmanager
def started(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A running mmlab that writes to ``folder/stderr``; it does not outlive the block."""
    with (folder / "stderr").open("w") as stderr:
        driver = subprocess.Popen(
            mmlab_command(*arguments), cwd=folder, stdout=stderr, stderr=stderr, text=True
        )
        try:
            yield driver
        finally:
            driver.kill()
            driver.wait()


def tune(folder: Path, *arguments: str) -> dict[str, Any]:
    done = run_mmlab(folder, "tune", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    content: dict[str, Any] = json.loads(done.stdout)
    return content
