"""The GPU check runs on a CPU with small data."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Without the interpreted kernels and the repository's tests, which the test suite runs itself.
SECTIONS = (
    *("environment", "bandwidth", "graphs", "same_random_numbers", "own_random_numbers", "speed"),
    *("methods", "range_test", "device_names", "cells_on_disk", "out_of_memory"),
)


@pytest.mark.slow
def test_gpu_check_runs_on_a_cpu(tmp_path: Path) -> None:
    output = tmp_path / "gpu_check.json"
    command = [sys.executable, "-m", "experiments.speed.gpu_check", "--device", "cpu", "--small"]
    command += ["--output", str(output), "--only", *SECTIONS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(output.read_text(encoding="utf-8"))
    assert set(SECTIONS) < set(results)
    assert all("error" not in results[name] for name in SECTIONS)
    # On a CPU nothing is captured: both trainings launch the same kernels.
    assert results["graphs"]["largest_loss_difference"] == 0
    assert len(results["speed"]["runs"]) == 11
