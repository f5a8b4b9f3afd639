"""The GPU check runs on a CPU with small data; on a GPU its sections are tests of mmlab."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
#: Without the interpreted kernels and the repository's tests, which the test suite runs itself.
SECTIONS = (
    *("environment", "bandwidth", "graphs", "same_random_numbers", "own_random_numbers", "speed"),
    *("methods", "range_test", "device_names", "cells_on_disk", "out_of_memory"),
)
#: Sections that state whether the CUDA code is right.
CUDA_SECTIONS = (
    *("kernels", "no_compiler", "graphs", "failed_capture", "same_random_numbers"),
    *("out_of_memory", "methods", "device_names", "real_cells", "repository_tests", "shared_gpu"),
)


def run_check(output: Path, *options: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "experiments.speed.gpu_check", "--output", str(output)]
    done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    results: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
    return results


@pytest.mark.long
@pytest.mark.slow
def test_gpu_check_runs_on_a_cpu(tmp_path: Path) -> None:
    options = ["--device", "cpu", "--small", "--only", *SECTIONS]
    results = run_check(tmp_path / "gpu_check.json", *options)
    assert set(SECTIONS) < set(results)
    assert all("error" not in results[name] for name in SECTIONS)
    # On a CPU nothing is captured: both trainings launch the same kernels.
    assert results["graphs"]["largest_loss_difference"] == 0
    assert len(results["speed"]["runs"]) == 11


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("section", CUDA_SECTIONS)
def test_cuda(tmp_path: Path, section: str) -> None:
    results = run_check(tmp_path / "gpu_check.json", "--device", "cuda", "--only", section)
    assert results[section]["ok"]
